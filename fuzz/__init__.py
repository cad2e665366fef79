"""Coverage-guided fuzzing of qdebug's readers: `python -m fuzz`."""
