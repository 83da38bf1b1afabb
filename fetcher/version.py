"""The version of both commands. Manifests, journals and HTTP requests contain it."""

from __future__ import annotations

VERSION = "0.1.0"
