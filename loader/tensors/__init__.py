"""A checkpoint's tensors as numpy arrays: `loader.open`.

Knows the checkpoint, how to read it, and what is in memory already. Knows no framework: `loader.adapters` does.
"""

from __future__ import annotations
