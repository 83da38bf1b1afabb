"""What an address of Azure Blob Storage names. Pure, and cheap to import."""

from __future__ import annotations

import re
from dataclasses import field
from urllib.parse import SplitResult, unquote, urlsplit

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import UsageError
from fetcher.sources.addresses import is_blob_address
from fetcher.values import dataclass

_CONTAINER = re.compile(r"\$root|\$web|[a-z0-9](?:-?[a-z0-9]){2,62}")
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,20}Z")
_WRITE = "write az://container/path or https://account.blob.core.windows.net/container/path"


@dataclass(frozen=True, slots=True)
class AzureAddress:
    """A blob or a prefix of a container.

    `account` and `service` (the address of the account) are None for `az://`. `sas` is the signature in the address.
    """

    container: str
    path: str
    account: str | None = None
    service: str | None = None
    version: str | None = None
    sas: str | None = field(default=None, repr=False)


def parsed(ref: ArtifactRef) -> AzureAddress:
    """The address in `ref`. Raises UsageError, which does not show a signature."""
    parts = urlsplit(ref.uri)
    if parts.scheme.lower() == "az":
        return _short(ref)
    if not is_blob_address(ref.uri):
        raise UsageError(f"not an address of Azure Blob Storage: {redact(ref.uri)}; {_WRITE}")
    container, _, path = unquote(parts.path).removeprefix("/").partition("/")
    _check(container, ref)
    version, sas = _query(parts, ref)
    host = (parts.hostname or "").lower()
    return AzureAddress(container, path, host.partition(".")[0], f"https://{host}", _one_version(version, ref), sas)


def _short(ref: ArtifactRef) -> AzureAddress:
    """`az://container/path`: the path is taken as written, since `?`, `#` and `%` may be part of a blob's name."""
    if "sig=" in ref.uri:
        raise UsageError("az:// takes no signature in the address; put it into AZURE_STORAGE_SAS_TOKEN")
    container, _, path = ref.uri[len("az://") :].partition("/")
    _check(container, ref)
    return AzureAddress(container, path, version=_one_version(None, ref))


def _check(container: str, ref: ArtifactRef) -> None:
    if _CONTAINER.fullmatch(container) is None:
        raise UsageError(f"not a container: {redact(ref.uri)}; {_WRITE}")


def _query(parts: SplitResult, ref: ArtifactRef) -> tuple[str | None, str | None]:
    """The version and the SAS in the query of an address."""
    pairs = [pair for pair in parts.query.split("&") if pair]
    versions = [unquote(pair.partition("=")[2]) for pair in pairs if pair.lower().startswith("versionid=")]
    rest = [pair for pair in pairs if not pair.lower().startswith("versionid=")]
    if len(versions) > 1 or (rest and not any(pair.startswith("sig=") for pair in rest)):
        raise UsageError(f"the query of {redact(ref.uri)} is neither a signature (SAS) nor versionid=; leave it out")
    return (versions[0] if versions else None), ("&".join(rest) or None)


def _one_version(named: str | None, ref: ArtifactRef) -> str | None:
    if named and ref.revision and named != ref.revision:
        raise UsageError(f"the address says version {named} and --revision says {ref.revision}; give one of them")
    version = ref.revision or named
    if version is not None and _VERSION.fullmatch(version) is None:
        raise UsageError(
            f"not a version of a blob: {version}; --revision takes a version ID such as 2026-11-26T09:00:00.0000000Z"
        )
    return version
