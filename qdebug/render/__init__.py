"""Renderers: a Report as text, each a function of the report alone."""
