"""What of a model's files is in the page cache, and how it gets there and stays: warm, status, drop, hold.

Knows files, pages and memory limits. Copies nothing into memory of its own, and knows nothing of tensors.
"""

from __future__ import annotations
