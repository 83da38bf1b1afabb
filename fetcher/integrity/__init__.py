"""Proof that bytes are right: published digests along the contiguous prefix, XXH3-128 of every chunk."""
