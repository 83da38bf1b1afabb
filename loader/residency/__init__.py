"""The page cache of a model's files: warm, status, drop and hold.

Knows files, pages and memory limits. Copies no file content into its own memory, and knows nothing of tensors.
"""

from __future__ import annotations
