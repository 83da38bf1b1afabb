"""Reads bytes from storage into memory: a few threads read blocks a bounded amount ahead and deliver them in order.

Knows files, byte ranges and buffers. Knows nothing of tensors, dtypes or checkpoints.

Neighbouring tensors are one block. A block is read in pieces of 8 MiB by a few threads, and handed out in order, at most a
window ahead. Memory is reference-counted by the views and reused after the last one is released: clearing fresh pages costs
more than reading into them. Past the page cache a block begins and ends on whole pages. After each block the file must still
be the one whose header was read.
"""

from __future__ import annotations
