"""Reads bytes from storage into memory: a few threads read blocks a bounded amount ahead and deliver them in order.

Knows files, byte ranges and buffers. Knows nothing of tensors, dtypes or checkpoints.
"""

from __future__ import annotations
