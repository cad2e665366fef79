"""`make_models.py` needs TensorFlow and is no test."""

collect_ignore = ["make_models.py"]
