"""What makes the models needs TensorFlow and is no test."""

collect_ignore = ["make_models.py", "quantization_debugger/make.py"]
