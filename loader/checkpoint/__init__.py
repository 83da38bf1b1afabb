"""What is in a checkpoint, by names and headers: its files in an engine's order, its tensors, its formats.

Knows paths, headers and formats. Touches no data, and knows nothing of memory or of how tensors are read.
"""

from __future__ import annotations
