"""What a `gs://` address names, and where the service is."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import ConfigurationError, UsageError
from fetcher.sources.locations import refuse_signed
from fetcher.transport.urls import normal
from fetcher.values import dataclass

_SERVICE = "https://storage.googleapis.com"
_URI = re.compile(r"(?i:gs)://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/([^#]*)(?:#([0-9]{1,20}))?)?")
"""The names that Google allows for buckets: 3 to 222 characters. `#` and digits name a generation, as for gcloud."""


@dataclass(frozen=True, slots=True)
class GcsAddress:
    """An object or a prefix of a bucket. `generation` names one content of one object."""

    bucket: str
    path: str
    generation: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The service. An emulator gets no credentials of the process."""

    url: str
    emulated: bool


def parsed(ref: ArtifactRef) -> GcsAddress:
    """The address in `ref`. Raises UsageError if it is malformed, or names another generation than --revision."""
    refuse_signed(ref.uri)
    match = _URI.fullmatch(ref.uri)
    if match is None:
        raise UsageError(f"not an address of Google Cloud Storage: {redact(ref.uri)}; write gs://bucket/path")
    named, wanted = match[3], ref.revision
    if wanted is not None and re.fullmatch(r"[0-9]{1,20}", wanted) is None:
        raise UsageError(f"not a generation: {wanted}; --revision takes the number of a generation for gs://")
    if named and wanted and named != wanted:
        raise UsageError(f"the URI says generation {named} and --revision says {wanted}; give one of them")
    return GcsAddress(match[1], match[2] or "", wanted or named)


def endpoint(environ: Mapping[str, str]) -> Endpoint:
    """`STORAGE_EMULATOR_HOST`, with or without a scheme, else Google's service. Raises ConfigurationError."""
    host = environ.get("STORAGE_EMULATOR_HOST", "").strip()
    if not host:
        return Endpoint(_SERVICE, emulated=False)
    try:
        url = normal(host if "://" in host else f"http://{host}")
    except ValueError:
        raise ConfigurationError("STORAGE_EMULATOR_HOST is not a web address; write it as http://host:port") from None
    return Endpoint(url.partition("?")[0].rstrip("/"), emulated=True)
