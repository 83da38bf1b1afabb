"""The page cache of a model's files: warm, status, drop and hold.

Knows files, pages and memory limits. Copies no file content into its own memory, and knows nothing of tensors.

How the page cache answers truthfully: mincore is tested with a page behind the end of the file. cachestat's zero on an
overlay is no answer. Faults are counted through a pipe, since Linux 6.1 does not count the waiting of populate.
"""

from __future__ import annotations
