"""A checkpoint's tensors as numpy arrays: `loader.open`.

Knows the checkpoint, its page-cache residency and how to read it. Knows no framework: `loader.adapters` does.
"""

from __future__ import annotations
