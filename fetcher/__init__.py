"""fetcher: brings model weights from where they are published to a verified, complete directory."""

from __future__ import annotations

__version__ = "0.1.0"
