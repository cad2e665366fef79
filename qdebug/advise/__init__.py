"""Advice: alternatives for a layer, the one to choose, and the operators to leave in float."""
