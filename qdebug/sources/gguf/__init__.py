"""GGUF, the weight files of llama.cpp: what they hold, and what each block of codes stands for."""
