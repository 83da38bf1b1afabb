"""An artifact copied to RAM or a local disk: chunk by chunk against its manifest, visible by one rename.

Knows files and manifests. Knows nothing of tensors or of the page cache.
"""

from __future__ import annotations
