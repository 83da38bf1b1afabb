"""Certificates as files, as cert-manager writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trustme

from fetcher.serving import CertificateFiles


def issued(
    authority: trustme.CA,
    directory: Path,
    name: str = "server",
    names: tuple[str, ...] = ("127.0.0.1",),
    **options: Any,
) -> CertificateFiles:
    """Write a new certificate: new files in the place of the former ones. `options`: those of trustme."""
    certificate = authority.issue_cert(*names, **options)
    pem = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    made = CertificateFiles(directory / f"{name}.pem", directory / f"{name}-key.pem")
    for path, content in ((made.chain, pem), (made.key, certificate.private_key_pem.bytes())):
        draft = path.with_name("draft")
        draft.write_bytes(content)
        draft.rename(path)
    return made
