"""The content of a checkpoint: its files in the order of an engine, its tensors, its formats.

Knows paths, headers and formats. Reads no tensor data. Knows nothing of memory, or of how tensors are read.

The safetensors package is the reference; `tests/loader/corpus.py` lists where we are stricter, and why. A shard remembers
device, inode, size and mtime: a file that is replaced later is an error, never mixed bytes.
"""

from __future__ import annotations
