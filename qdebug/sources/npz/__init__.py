"""Arrays in .npz files: read forward in blocks, and checked. Knows nothing about layers."""
