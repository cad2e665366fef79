"""Integer-only arithmetic of quantized operators, as TensorFlow Lite's reference kernels do it."""
