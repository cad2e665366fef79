"""Debugger for quantized neural networks: which layers does quantization hurt, and why."""

__version__ = "0.1.0"
