"""Quantization arithmetic: codes and floats, and what integer kernels compute."""
