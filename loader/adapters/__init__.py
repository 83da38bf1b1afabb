"""Tensors for other people's programs. Each module imports its program, and is imported by that or by whoever asked for it."""
