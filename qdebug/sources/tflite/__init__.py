"""Pairs of LiteRT models, float and quantized, as a source."""
