"""Safetensors, the weight files of Hugging Face: what they hold, in each quantizer's layout."""
