"""A certificate authority for one test. It exists as long as the process that created it."""

from __future__ import annotations

import shutil
import ssl
import tempfile
import weakref
from functools import cached_property
from pathlib import Path


class Certificates:
    """A certificate authority for loopback names. Needs the package `trustme`."""

    def __init__(self) -> None:
        import trustme

        self._authority = trustme.CA()
        self._directory = tempfile.mkdtemp(prefix="origin-ca-")
        weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)

    @cached_property
    def ca_file(self) -> Path:
        """The authority as PEM, in a directory that is removed with this object."""
        path = Path(self._directory) / "ca.pem"
        self._authority.cert_pem.write_to_path(str(path))
        return path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        return context
