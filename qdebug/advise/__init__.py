"""Advice: other ways to quantize a layer, the one to choose, the operators to leave in float."""
