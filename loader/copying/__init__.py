"""Copy an artifact to RAM or a local disk: each chunk is checked against the manifest, and one rename publishes the copy.

Knows files and manifests. Knows nothing of tensors or of the page cache.
"""

from __future__ import annotations
