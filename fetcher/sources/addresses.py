"""Parses URIs into the kind of source, repository, revision and path. Pure, and cheap to import."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from fetcher.artifact import ArtifactRef, Digest
from fetcher.errors import ConfigurationError, UnsupportedScheme, UsageError
from fetcher.transport.urls import basic_authorization, normal
from fetcher.values import dataclass

WORKING = ("hf://", "s3://", "gs://", "az://", "oci://", "http://", "https://", "file://", "pvc://", "a path")
DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"

Kind = Literal["models", "datasets"]
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HF_URI = re.compile(rf"(?i:hf)://(datasets/|models/)?({_NAME}/{_NAME}|{_NAME})(?:[@:](.+?))?/?")
_PAGES_OF_THE_HUB = ("huggingface.co", "www.huggingface.co", "hf.co")
_PAGE = re.compile(
    rf"/(?P<kind>datasets/)?(?P<name>{_NAME}/{_NAME})"
    r"(/(?P<view>tree|blob)/(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+)(/(?P<path>.*?))?)?/?"
)
_NO_OWNERS = ("api", "datasets", "docs", "spaces", "models")
_FILE_NAME = re.compile(r"\.[A-Za-z][A-Za-z0-9]*$")
"""A file's suffix begins with a letter: `Qwen2.5-0.5B` has none."""


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository of the Hub at the requested revision.

    `path` is set if the URI names one of its files. `pins` are the digests that this file must have.
    """

    kind: Kind
    repository: str
    revision: str
    path: str | None = None
    pins: tuple[Digest, ...] = ()

    @property
    def folder(self) -> str:
        """The repository's folder in a Hub cache: `models--org--name`."""
        return "--".join((self.kind, *self.repository.split("/")))

    @property
    def uri(self) -> str:
        """The address of the repository without a revision: `hf://org/name`."""
        return f"hf://{self.prefix}{self.repository}"

    @property
    def prefix(self) -> str:
        """The part before the repository in addresses that serve files."""
        return "" if self.kind == "models" else f"{self.kind}/"


def scheme_of(uri: str) -> str:
    """The scheme of `uri`: `hf`, `s3`, `gs`, `az`, `oci`, `http`, `https`, `file` or `pvc`.

    Raises UnsupportedScheme, UsageError.
    """
    if not uri.strip():
        raise UsageError("the URI is empty; give one such as hf://org/model")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match is None:
        return "file"
    scheme = match[1].lower()
    if scheme in ("hf", "s3", "gs", "az", "oci", "http", "https", "file", "pvc"):
        return scheme
    if scheme == "oci+fetch":  # KServe's name for fetching an image instead of mounting it
        return "oci"
    raise UnsupportedScheme(f"{scheme}:// is not supported; these work: {', '.join(WORKING)}")


def is_blob_address(uri: str) -> bool:
    """Whether `uri` is the address of a container or of a blob of Azure. One with a pin is a file of the web."""
    parts = _web_parts(uri)
    return (
        parts is not None
        and parts.scheme == "https"
        and not parts.fragment
        and parts.port in (None, 443)
        and (
            re.fullmatch(
                r"[a-z0-9-]{3,50}(\.z[0-9]{1,2})?\.blob\.(core\.(windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)|storage\.azure\.net)",
                parts.hostname or "",
            )
            is not None
        )
    )


def hub_endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """`HF_ENDPOINT` without credentials and trailing slash, by default the Hub's address. Raises ConfigurationError."""
    try:
        return normal(_configured_endpoint(environ)).partition("?")[0].rstrip("/")
    except ValueError:
        raise ConfigurationError("HF_ENDPOINT is not a web address; write it as https://host") from None


def hub_credentials(environ: Mapping[str, str] = os.environ) -> str | None:
    """The Authorization header for the user and password in `HF_ENDPOINT`; None without them. Call `hub_endpoint` first."""
    return basic_authorization(urlsplit(_configured_endpoint(environ)))


def _configured_endpoint(environ: Mapping[str, str]) -> str:
    return environ.get("HF_ENDPOINT", "").strip() or DEFAULT_ENDPOINT


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the user forbids network access, by the variables that huggingface_hub reads."""
    values = (environ.get(name, "").strip().upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in ("1", "TRUE", "YES", "ON") for value in values)


def pins_of(fragment: str) -> tuple[Digest, ...]:
    """The digests that a web address pins its file to, by the fragment `sha256=HEX`. Raises UsageError."""
    if not fragment:
        return ()
    match = re.fullmatch(r"sha256[=:]([0-9A-Fa-f]{64})", fragment)
    if match is None:
        raise UsageError(f"not a pin: #{fragment[:80]}; write #sha256=<64 hex digits>")
    return (Digest("sha256", match[1].lower()),)


def hub_address(ref: ArtifactRef, environ: Mapping[str, str] = os.environ) -> HubAddress | None:
    """The repository that `ref` names by `hf://` or by a /resolve/ address of the Hub; None for any other URI.

    Raises UsageError if the URI is malformed, or if its revision contradicts --revision.
    """
    scheme = scheme_of(ref.uri)
    if scheme == "hf":
        return _from_hf_uri(ref)
    if scheme in ("http", "https"):
        parts = _web_parts(ref.uri)
        if parts is None:
            raise UsageError("the address is malformed; check its host and port")
        base = urlsplit(hub_endpoint(environ))
        address = _from_resolve_address(ref, parts, base)
        if address is None:
            _refuse_page(parts, base)
        return address
    return None


def hub_folder(ref: ArtifactRef) -> tuple[str | None, str | None]:
    """The folder in a Hub cache and the requested revision; (None, None) if `ref` does not name the Hub. Raises UsageError."""
    address = hub_address(ref)
    return (address.folder, address.revision) if address else (None, None)


def address_of_folder(folder: str) -> HubAddress | None:
    """The repository with this folder in a Hub cache; None if no repository has such a folder."""
    match = re.fullmatch(rf"(models|datasets)--({_NAME}?)(?:--({_NAME}))?", folder)
    if match is None:
        return None
    kind: Kind = "datasets" if match[1] == "datasets" else "models"
    return HubAddress(kind, "/".join(name for name in match.groups()[1:] if name), DEFAULT_REVISION)


def named_revision(ref: ArtifactRef) -> str | None:
    """The revision of a Hub repository that `ref` names, by --revision or in its URI; None without one. Raises UsageError."""
    named = _HF_URI.fullmatch(ref.uri)
    if named is None and (address := hub_address(ref)):
        return address.revision  # an address of a file always says it
    return ref.revision or (named[3] if named else None)


def is_commit(revision: str) -> bool:
    """Whether `revision` is a commit, whose files never change."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _from_hf_uri(ref: ArtifactRef) -> HubAddress:
    match = _HF_URI.fullmatch(ref.uri)
    if match is None or match[2] in ("datasets", "models", "spaces"):
        raise UsageError(
            f"not a repository: {ref.uri}; write hf://owner/name, hf://owner/name@revision or hf://datasets/owner/name"
        )
    kind: Kind = "datasets" if match[1] == "datasets/" else "models"
    return HubAddress(kind, match[2], _one_revision(match[3], ref))


def _web_parts(url: str) -> SplitResult | None:
    """The parts of a web address; None if its host is missing or its port is invalid."""
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
    """Raise UsageError, with the URI to use instead, for the address of a web page of the Hub."""
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
        raise UsageError(
            f"this is the address of a page about a file; did you mean {file}? ({repository} is the whole repository)"
        )
    below = f" with --include '{unquote(match['path'])}/*'" if match["path"] else ""
    raise UsageError(f"this is the address of a page about a repository; did you mean {repository}{below}?")


def meant_repository(text: str) -> str | None:
    """The `hf://` URI that the user may have meant by a bare `owner/name`; None for any other text."""
    match = re.fullmatch(rf"(?:(datasets)/|models/)?({_NAME}/{_NAME})(@[^@\s]+)?/?", text)
    return f"hf://{'datasets/' if match[1] else ''}{match[2]}{match[3] or ''}" if match else None


def _one_revision(written: str | None, ref: ArtifactRef) -> str:
    if written and ref.revision and written != ref.revision:
        raise UsageError(f"the URI says revision {written} and --revision says {ref.revision}; give one of them")
    revision = ref.revision or written or DEFAULT_REVISION
    if not re.fullmatch(r"[A-Za-z0-9._/+-]{1,255}", revision) or ".." in revision or revision.startswith("/"):
        raise UsageError(f"not a revision: {revision!r}; give a branch, a tag, a commit or refs/pr/N")
    return revision
