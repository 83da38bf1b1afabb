"""OpenSSF Model Signing: the digests in a `model.sig`, once its signature is verified.

A signature is a Sigstore bundle around an in-toto statement, which lists the SHA-256 of every file. The package `model-signing`
verifies it. Here no file is hashed: the transfer compares every file with its digest anyway.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError, SignatureInvalid, UsageError
from fetcher.planning.digest_lists import LARGEST, DigestList, parse_list
from fetcher.settings import Signer

_SHOWN = 200
"""Characters of a reason that `model-signing` gives: some contain the whole statement."""


def read_list(data: bytes, *, where: str, signer: Signer | None) -> DigestList:
    """Return the digests of a list of sha256sum or, with `signer`, of a signature; `where` names the file.

    Raises ConfigurationError for another format, an unreadable key or a missing package, SignatureInvalid.
    """
    if len(data) > LARGEST:
        raise ConfigurationError(f"{where} has more than {LARGEST:,} bytes; give a list of sha256sum, or a signature")
    if signer is not None:
        return _signed(data, where, signer)
    if _is_bundle(data):
        raise ConfigurationError(f"{where} is a signature; say with --signing-key whose, or give a list of sha256sum")
    return parse_list(data, where=where)


def _signed(data: bytes, where: str, signer: Signer) -> DigestList:
    if not _is_bundle(data):
        raise SignatureInvalid(f"{where} is not a signature of OpenSSF Model Signing; ask the publisher for one")
    statement = _verified(data, where, signer)
    digests: dict[str, Digest] = {}
    for name, algorithm, value in statement.files:
        try:
            digests[name] = Digest(algorithm, value)  # type: ignore[arg-type]  # __post_init__ checks it
        except UsageError:
            raise SignatureInvalid(
                f"{where} lists a digest of the kind {algorithm}; ask the publisher to sign SHA-256 of whole files"
            ) from None
    return DigestList(where, digests, exempt=(where.rpartition("/")[2], *statement.ignored))


class _Statement:
    """Takes the place of the hashing in `model_signing.verifying`, and keeps what the signed statement lists.

    The package compares what its hashing returns with the statement. This one equals every statement, so that `verify` ends
    after the check of the signature.
    """

    def __init__(self) -> None:
        self.files: list[tuple[str, str, str]] = []
        self.ignored: list[str] = []

    def add_ignored_paths(self, *, model_path: object, paths: Iterable[object]) -> None:
        """Keep the paths that the signer left out."""
        self.ignored += [str(path) for path in paths]

    def hash(self, model_path: object, *, files_to_hash: object = None) -> Self:
        """Hash nothing."""
        return self

    def __ne__(self, other: object) -> bool:
        signed: Any = other
        whole = signed.serialization_type.get("method") == "files"  # else each digest is that of a range
        for each in signed.resource_descriptors():
            algorithm = str(each.digest.algorithm) if whole else "shard"
            self.files.append((str(each.identifier), algorithm, str(each.digest.digest_hex)))
        return False


def _verified(data: bytes, where: str, signer: Signer) -> _Statement:
    statement, config = _Statement(), _config(signer)
    with tempfile.NamedTemporaryFile(suffix=".sig") as file, contextlib.redirect_stdout(sys.stderr):
        file.write(data)
        file.flush()
        try:
            config.set_hashing_config(statement).verify(Path("/nonexistent"), Path(file.name))
        except Exception as error:
            raise SignatureInvalid(
                f"{where} was not signed by {signer.named}, or was changed since: {_reason(error)}; use nothing of it until "
                "its publisher explains this"
            ) from error
    return statement


def _config(signer: Signer) -> Any:
    """The configuration of `model-signing` for `signer`. Raises ConfigurationError."""
    try:
        config: Any = importlib.import_module("model_signing.verifying").Config()
    except ImportError as error:
        raise ConfigurationError("signatures need model-signing; run pip install 'weightlift[sign]'") from error
    try:
        if signer.key is not None:
            return config.use_elliptic_key_verifier(public_key=signer.key)
        if signer.certificates is not None:
            return config.use_certificate_verifier(certificate_chain=[signer.certificates])
        return config.use_sigstore_verifier(identity=signer.identity, oidc_issuer=signer.issuer)
    except Exception as error:
        raise ConfigurationError(f"cannot verify signatures of {signer.named}: {_reason(error)}; {signer.advice}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__


def _is_bundle(data: bytes) -> bool:
    if not data.lstrip().startswith(b"{"):
        return False
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(data)
        return isinstance(document, dict) and "dsseEnvelope" in document
    return False
