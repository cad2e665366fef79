"""Quantization arithmetic: codes, floats, and which range of floats to represent."""
