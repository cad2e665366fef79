"""Pairs of ONNX models, float and quantized, as a source."""
