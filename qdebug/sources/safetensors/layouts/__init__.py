"""How quantizers store a weight in several arrays: one module a layout, and which one it is."""
