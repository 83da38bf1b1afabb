"""How bytes come from storage into memory: blocks read by a few threads, a bounded amount ahead, handed out in order.

Knows files, byte ranges and buffers. Knows nothing of tensors, dtypes or checkpoints.
"""

from __future__ import annotations
