"""Pair files (docs/pair-file.md): read and written."""
