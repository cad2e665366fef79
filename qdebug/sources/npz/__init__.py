"""Arrays in .npz files: read forwards, in blocks, and checked. Knows nothing of layers."""
