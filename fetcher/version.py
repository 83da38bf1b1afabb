"""The version of both commands, which manifests, journals and requests name."""

from __future__ import annotations

VERSION = "0.1.0"
