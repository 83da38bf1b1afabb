"""URIs, read: which kind of source, which repository, which revision, which path. Pure, and cheap to import."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from fetcher.artifact import ArtifactRef, Digest
from fetcher.errors import ConfigurationError, UnsupportedScheme, UsageError
from fetcher.transport.urls import basic, normal

WORKING = ("hf://", "http://", "https://", "file://", "pvc://", "a path")
RESERVED = ("s3", "gs", "az", "oci")
DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"

Kind = Literal["models", "datasets"]
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PAGES_OF_THE_HUB = ("huggingface.co", "www.huggingface.co", "hf.co")
_PAGE = re.compile(
    rf"/(?P<kind>datasets/)?(?P<name>{_NAME}/{_NAME})"
    r"(/(?P<view>tree|blob)/(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+)(/(?P<path>.*?))?)?/?"
)
_NO_OWNERS = ("api", "datasets", "docs", "spaces", "models")
_FILE_NAME = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")
"""`Qwen2.5-0.5B` has no suffix that a file could have: those begin with a letter."""


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository of the Hub at a revision as asked for; `path` when the URI names one file of it, `pins` the digests that
    file must have."""

    kind: Kind
    repository: str
    revision: str
    path: str | None = None
    pins: tuple[Digest, ...] = ()

    @property
    def folder(self) -> str:
        """Its name in a Hub cache: `models--org--name`."""
        return "--".join((self.kind, *self.repository.split("/")))

    @property
    def prefix(self) -> str:
        """What precedes the repository in addresses that serve files."""
        return "" if self.kind == "models" else f"{self.kind}/"


def scheme_of(uri: str) -> str:
    """`hf`, `http`, `https`, `file`, `pvc`. Raises UnsupportedScheme, UsageError."""
    if not uri.strip():
        raise UsageError("the URI is empty; give one such as hf://org/model")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match is None:
        return "file"
    scheme = match[1].lower()
    if scheme in ("hf", "http", "https", "file", "pvc"):
        return scheme
    known = "is reserved, not built yet" if scheme in RESERVED else "is not known"
    raise UnsupportedScheme(f"{scheme}:// {known}; these work: {', '.join(WORKING)}")


def hub_endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """`HF_ENDPOINT` without credentials and trailing slash, else the Hub's. Raises ConfigurationError for no web address."""
    try:
        return normal(_given_endpoint(environ)).partition("?")[0].rstrip("/")
    except ValueError:
        raise ConfigurationError("HF_ENDPOINT is no web address; write it as https://host") from None


def hub_credentials(environ: Mapping[str, str] = os.environ) -> str | None:
    """The value of Authorization for a user and password in `HF_ENDPOINT`; None without them. `hub_endpoint` accepted it."""
    return basic(urlsplit(_given_endpoint(environ)))


def _given_endpoint(environ: Mapping[str, str]) -> str:
    return environ.get("HF_ENDPOINT", "").strip() or DEFAULT_ENDPOINT


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the user forbids the network, by the variables that huggingface_hub reads."""
    given = (environ.get(name, "").strip().upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in ("1", "TRUE", "YES", "ON") for value in given)


def pins_of(fragment: str) -> tuple[Digest, ...]:
    """What a web address pins its file to: `sha256=HEX`, or nothing. Raises UsageError."""
    if not fragment:
        return ()
    match = re.fullmatch(r"sha256[=:]([0-9A-Fa-f]{64})", fragment)
    if match is None:
        raise UsageError(f"not a pin: #{fragment[:80]}; write #sha256=<64 hex digits>")
    return (Digest("sha256", match[1].lower()),)


def hub_address(ref: ArtifactRef, environ: Mapping[str, str] = os.environ) -> HubAddress | None:
    """The repository that `ref` names by `hf://` or by the Hub's own /resolve/ address; None for anything else.

    Raises UsageError when the URI is malformed, or its revision and --revision contradict each other.
    """
    scheme = scheme_of(ref.uri)
    if scheme == "hf":
        return _from_hf_uri(ref)
    if scheme in ("http", "https"):
        parts = _web_parts(ref.uri)
        if parts is None:
            raise UsageError("the address can't be read; check its host and port")
        base = urlsplit(hub_endpoint(environ))
        address = _from_resolve_address(ref, parts, base)
        if address is None:
            _refuse_page(parts, base)
        return address
    return None


def hub_folder(ref: ArtifactRef) -> tuple[str | None, str | None]:
    """The Hub cache's folder and the revision asked for; (None, None) for what is not of the Hub."""
    address = hub_address(ref)
    return (address.folder, address.revision) if address else (None, None)


def _from_hf_uri(ref: ArtifactRef) -> HubAddress:
    match = re.fullmatch(rf"(?i:hf)://(datasets/|models/)?({_NAME}/{_NAME}|{_NAME})(?:[@:](.+?))?/?", ref.uri)
    if match is None or match[2] in ("datasets", "models", "spaces"):
        raise UsageError(
            f"not a repository: {ref.uri}; write hf://owner/name, hf://owner/name@revision or hf://datasets/owner/name"
        )
    kind: Kind = "datasets" if match[1] == "datasets/" else "models"
    return HubAddress(kind, match[2], _one_revision(match[3], ref))


def _web_parts(url: str) -> SplitResult | None:
    """None for what names no host, or a port that is none."""
    try:
        parts = urlsplit(url)
        readable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if readable else None


def _from_resolve_address(ref: ArtifactRef, parts: SplitResult, base: SplitResult) -> HubAddress | None:
    same = (parts.scheme.lower(), parts.hostname, parts.port) == (base.scheme.lower(), base.hostname, base.port)
    if not same or parts.username or not parts.path.startswith(base.path + "/"):
        return None
    match = re.fullmatch(
        rf"/(datasets/)?({_NAME}/{_NAME}|{_NAME})/resolve/(refs/(?:pr|convert)/[^/]+|[^/]+)/(.+)",
        parts.path[len(base.path) :],
    )
    if match is None:
        return None
    kind: Kind = "datasets" if match[1] else "models"
    revision = _one_revision(unquote(match[3]), ref)
    return HubAddress(kind, match[2], revision, unquote(match[4]), pins_of(parts.fragment))


def _refuse_page(parts: SplitResult, base: SplitResult) -> None:
    """Raises UsageError, with the URI to write instead, for the address of a page that people read in a browser."""
    hub = parts.hostname in _PAGES_OF_THE_HUB
    if not hub and not (parts.netloc.lower() == base.netloc and parts.path.startswith(f"{base.path}/")):
        return
    match = _PAGE.fullmatch(parts.path if hub else parts.path[len(base.path) :])
    if match is None or parts.username or match["name"].partition("/")[0] in _NO_OWNERS:
        return
    if match["view"] is None and not hub and (parts.query or parts.fragment or _FILE_NAME.search(match["name"])):
        return
    repository = f"hf://{match['kind'] or ''}{match['name']}" + (f"@{unquote(match['revision'])}" if match["revision"] else "")
    if match["view"] == "blob":
        place = f"{base.scheme}://{base.netloc}{base.path}" if not hub or base.hostname == parts.hostname else DEFAULT_ENDPOINT
        file = f"{place}/{match['kind'] or ''}{match['name']}/resolve/{match['revision']}/{match['path'] or ''}"
        raise UsageError(f"this is the address of a page about a file; did you mean {file}? ({repository} is all of its files)")
    below = f" with --include '{unquote(match['path'])}/*'" if match["path"] else ""
    raise UsageError(f"this is the address of a page about a repository; did you mean {repository}{below}?")


def meant_repository(text: str) -> str | None:
    """The URI that a bare `owner/name`, which is no path on this machine, may have been meant as."""
    match = re.fullmatch(rf"(?:(datasets)/|models/)?({_NAME}/{_NAME})(@[^@\s]+)?/?", text)
    return f"hf://{'datasets/' if match[1] else ''}{match[2]}{match[3] or ''}" if match else None


def _one_revision(written: str | None, ref: ArtifactRef) -> str:
    if written and ref.revision and written != ref.revision:
        raise UsageError(f"the URI says revision {written} and --revision says {ref.revision}; give one of them")
    revision = ref.revision or written or DEFAULT_REVISION
    if not re.fullmatch(r"[A-Za-z0-9._/+-]{1,255}", revision) or ".." in revision or revision.startswith("/"):
        raise UsageError(f"not a revision: {revision!r}; give a branch, a tag, a commit or refs/pr/N")
    return revision
