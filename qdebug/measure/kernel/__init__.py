"""Kernel: the statistics of a block, by a compiled loop (kernel.c) or by NumPy (plain.py)."""
