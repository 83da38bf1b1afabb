"""The secret that this node shows to its peers."""

from __future__ import annotations

import os
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.transport.client import Credentials

_LARGEST = 64 * 1024


class Secret:
    """The first line of `file`, which is read for each request: it may be exchanged, or be a token that expires."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def check(self) -> None:
        """Raises ConfigurationError if there is none now."""
        try:
            if self._read() is not None:
                return
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"cannot read {self._file}, the secret for mirrors: {problem}") from error
        raise ConfigurationError(f"the first line of {self._file} is no secret; write the one that the mirrors' servers have")

    def shown_to(self, peer: str) -> Credentials | None:
        """Return what the peer at a base URL is shown; None while the file has no secret. Then the peer refuses."""
        try:
            secret = self._read()
        except OSError:
            return None
        return Credentials(peer, {"Authorization": f"Bearer {secret}"}, f"{self._file}") if secret is not None else None

    def _read(self) -> str | None:
        descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            lines = os.read(descriptor, _LARGEST).splitlines()
        finally:
            os.close(descriptor)
        text = next((line.strip() for line in lines if line.strip()), b"").decode("latin-1")
        return text if text and text.isascii() and text.isprintable() and " " not in text else None
