"""Reads `oci://` URIs. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from fetcher.errors import ConfigurationError, UsageError
from fetcher.values import dataclass

DEFAULT_TAG = "latest"
PLAIN_HTTP = "FETCHER_PLAIN_HTTP_REGISTRIES"
"""The variable that names registries without TLS: `host:port`, with commas between them."""
DOCKER_HUB = "docker.io"

_URI = re.compile(r"(?i:oci(?:\+fetch)?)://(?P<host>[^/@]+)/(?P<repository>[^:@]+)(?::(?P<tag>[^:@]+))?(?:@(?P<digest>.+))?")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_COMPONENT = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
"""The grammars of names, tags and digests in the distribution specification."""


@dataclass(frozen=True, slots=True)
class OciAddress:
    """A repository of a registry, and in it a tag or the digest of a manifest (`reference`)."""

    registry: str
    repository: str
    reference: str

    @classmethod
    def parse(cls, uri: str, revision: str | None) -> OciAddress:
        """Parse `oci://registry/repository:tag` or `...@sha256:HEX`; `revision` is a tag or a digest too. Raises UsageError."""
        if re.match(r"(?i)oci://n/[^/]+/b/[^/]+/o(/|$)", uri):
            raise UsageError("this is an address of Oracle's object storage, which is not supported; oci:// names a registry")
        match = _URI.fullmatch(uri)
        if match is None or not _HOST.fullmatch(match["host"]) or not _REPOSITORY.fullmatch(match["repository"]):
            raise UsageError("not a repository of a registry; write oci://registry/repository:tag, in lower case")
        written = match["digest"] or match["tag"]
        if written and revision and revision not in (match["digest"], match["tag"]):
            raise UsageError(f"the URI says {written} and --revision says {revision}; give one of them")
        return cls(match["host"].lower(), match["repository"], _reference(match["digest"] or revision or match["tag"]))

    @property
    def pinned(self) -> str | None:
        """The digest that the address names; None for a tag."""
        return self.reference if _DIGEST.fullmatch(self.reference) else None

    @property
    def name(self) -> str:
        """The address for messages."""
        return f"{self.registry}/{self.repository}{'@' if self.pinned else ':'}{self.reference}"

    def endpoint(self, environ: Mapping[str, str]) -> str:
        """The web address of the registry. Raises ConfigurationError for a malformed list of registries without TLS.

        As with docker, a registry on this machine needs no TLS.
        """
        named = [each.strip().lower() for each in environ.get(PLAIN_HTTP, "").split(",") if each.strip()]
        for each in named:
            if not _HOST.fullmatch(each):
                raise ConfigurationError(f"{PLAIN_HTTP} has an entry that is not a host; write host:port, with commas between")
        if self.registry in (DOCKER_HUB, "index.docker.io"):
            return "https://registry-1.docker.io"
        plain = self.registry in named or _is_loopback(self.registry)
        return f"{'http' if plain else 'https'}://{self.registry}"


def _reference(text: str | None) -> str:
    reference = text or DEFAULT_TAG
    if not _TAG.fullmatch(reference) and not _DIGEST.fullmatch(reference):
        shown = reference.partition("?")[0][:80]  # what follows may be a token
        raise UsageError(f"not a tag or digest: {shown!r}; write a tag, or sha256:<64 hex digits>")
    return reference


def _is_loopback(registry: str) -> bool:
    host = re.sub(r":[0-9]+$", "", registry).strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
