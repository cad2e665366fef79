"""Replay of a quantized .tflite model: every operator's codes, computed once more in integers."""
