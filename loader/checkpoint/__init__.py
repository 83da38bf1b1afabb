"""The content of a checkpoint: its files in the order of an engine, its tensors, its formats.

Knows paths, headers and formats. Reads no tensor data. Knows nothing of memory, or of how tensors are read.
"""

from __future__ import annotations
