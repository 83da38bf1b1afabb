"""All settings of a fetch in one frozen value, and the parsing of some of them.

The public entry points own the defaults; inner functions take required keywords. The field `limit_rate` is the flag
`--limit-rate` and the variable `FETCHER_LIMIT_RATE`; the flag takes precedence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from fetcher.artifact import Digest
from fetcher.errors import ConfigurationError, UsageError
from fetcher.quantities import Amount
from fetcher.values import dataclass

MiB = 1024 * 1024

Layout = Literal["flat", "hf-cache"]
Refresh = Literal["if-not-present", "on-change"]
PageCache = Literal["auto", "keep", "drop"]
Dedupe = Literal["clone", "link", "off"]

MOST_CONNECTIONS = 1024
NAMED = {"dns": "http", "dns+https": "https"}
"""The schemes of a name whose addresses are peers, and how these are reached."""
PLACEHOLDERS = ("{url}", "{host}", "{path}")
"""What the address of a mirror may have in place of a part of a file's address: all of it (escaped), its host, its path."""
LEAST_MEMORY = 16 * MiB
"""Bytes. The smallest buffers of a connection take 832 KiB and each hash thread 2 MiB (`planning.memory`)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of `count` processes that fetch an artifact together. `index` is from 0."""

    index: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who must have signed an artifact: the owner of a public key, one whom trusted certificates vouch for, or an identity of
    an OpenID Connect issuer. `key` and `certificates` are PEM files; exactly one of the three is given."""

    key: Path | None = None
    certificates: Path | None = None
    identity: str | None = None
    issuer: str | None = None

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.key, self.certificates, self.identity)) != 1:
            raise UsageError("give one of --signing-key, --signing-certificates and --signing-identity")
        if (self.identity is None) != (self.issuer is None):
            raise UsageError("--signing-identity and --signing-issuer belong together; give both")

    @property
    def named(self) -> str:
        """The signer for messages."""
        return str(self.key or self.certificates or f"{self.identity} at {self.issuer}")

    @property
    def advice(self) -> str:
        """What to do if signatures of the signer cannot be verified at all."""
        if self.identity is not None:
            return "Sigstore's trusted root must be reachable or cached; otherwise use --signing-key or --signing-certificates"
        return "give a PEM file: of an elliptic public key (P-256, P-384, P-521), or of certificates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a fetch. Sizes in bytes, rates in bytes per second, times in seconds; None means no limit.

    The artifact goes to `dest` if that is set, otherwise below `cache_dir`. That is a root with one directory for each cache
    key or, with the layout `hf-cache`, a Hub cache.
    """

    cache_dir: Path
    dest: Path | None = None
    shared_dest: bool = False
    """Whether `dest` can hold other artifacts too: each has its own manifest, and none deletes the files of another."""
    layout: Layout = "flat"
    refresh: Refresh = "if-not-present"
    resolved: str | None = None
    """The revision that the requested one stood for when it was resolved: that one is fetched, or nothing."""
    expect: Mapping[str, Digest] = field(default_factory=dict)
    expect_file: str | None = None
    """A list of `sha256sum`: a local file, or the name of a file of the source. Its digests count as `expect`."""
    signer: Signer | None = None
    """Who must have signed `expect_file`, which then is a signature such as model.sig and covers every selected file."""
    require_digests: bool = False
    require_checksums: bool = False
    """Whether each file needs a digest, or at least a checksum of its store."""
    accept_unverified: bool = False
    """Whether an artifact that was adopted without asking its source satisfies the request."""
    hard_link: bool = False
    dedupe: Dedupe = "clone"
    """Whether and how a file comes from another artifact of the cache root that has its digest."""
    pvc_mounts: Mapping[str, Path] = field(default_factory=dict)
    max_concurrency: int = 32
    limit_rate: float | None = None
    memory_limit: int = 256 * MiB
    page_cache: PageCache = "auto"
    timeout_stall: float = 30.0
    retry_for: float = 300.0
    mirrors: tuple[str, ...] = ()
    """Addresses of mirrors, as `parse_mirror` returns them: of peers, or with the placeholders of a cache. A peer is a
    `fetcher serve`: one address, or a name whose addresses are peers (`dns://`)."""
    mirror_secret_file: Path | None = None
    """The file whose first line is the secret of every peer. It is read for each request."""
    mirror_ca: Path | None = None
    """The authorities that vouch for peers; None: those of the system."""
    mirror_cert: Path | None = None
    mirror_key: Path | None = None
    """The certificate that peers are shown, and its key. All three are PEM files, read again when they change."""
    peers: Callable[[], Iterable[str]] | None = None
    """Returns the base URLs of more peers that there are now. It is called every two seconds, on the event loop."""
    node: str | None = None
    """The identity of this node, if a server that this process knows to run passes on what is fetched here (`Server.node`).
    None: the fetch looks whether a peer has the identity of its cache root."""
    part: Part | None = None
    """The part of this process in a cooperative fetch; None: it fetches the whole artifact."""
    max_size: Amount | None = None
    min_free: Amount | None = None
    min_idle: float | None = None
    """Seconds without use before an artifact may be evicted; None: as the root says, else an hour."""
    eviction_ranks: Mapping[str, int] = field(default_factory=dict)
    """Cache key → rank in eviction: a lower rank goes first, whenever it was used. Other artifacts have rank 0."""
    hold: float | None = None
    """Seconds for which the artifact is held after the fetch: it is not evicted."""
    pod_uid: str | None = None
    """The pod that holds the artifact: for `hold` seconds, or until `fetcher release`."""
    lease_wait: float | None = None
    lease_stale: float | None = None
    """Seconds without a heartbeat after which an owner is replaced; None: 60, or 180 on a network filesystem."""


def default_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$XDG_CACHE_HOME/weightlift`, else `~/.cache/weightlift`. Raises ConfigurationError without a HOME."""
    base = environ.get("XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        return Path(base) / "weightlift"
    if home := environ.get("HOME"):
        return Path(home) / ".cache" / "weightlift"
    raise ConfigurationError("cannot choose a cache directory: HOME is not set; give --cache-dir or set FETCHER_CACHE_DIR")


def hub_cache_dir(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the cache directory of huggingface_hub, from the same variables in the same order; None without a HOME."""
    if directory := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return _expanded(directory)
    if home := environ.get("HF_HOME"):
        return _expanded(home) / "hub"
    if cache := environ.get("XDG_CACHE_HOME") or (f"{environ['HOME']}/.cache" if environ.get("HOME") else None):
        return _expanded(cache) / "huggingface" / "hub"
    return None


def parse_part(text: str) -> Part:
    """Parse `I/N`, such as `0/4`. Raises ConfigurationError."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigurationError(f"{text!r} is not a part; write I/N with I from 0 and below N, such as 0/4")
    return Part(int(match[1]), int(match[2]))


def parse_mirror(text: str) -> str:
    """Return the address of a mirror without a final slash. Raises ConfigurationError, which shows no credential."""
    where = text.strip().rstrip("/")
    if peers_named(where) is not None:
        return where
    parts = _web_address(where)
    if "@" in parts.netloc:
        raise ConfigurationError("a mirror's address must hold no credential; give a secret with --mirror-secret-file")
    if "{" in parts.netloc or set(re.findall(r"[{][^}]*[}]?", where)) - set(PLACEHOLDERS):
        raise ConfigurationError(f"{where} has an unknown placeholder; {', '.join(PLACEHOLDERS)} work, after the host")
    if is_served(where) and (parts.path or parts.query or parts.fragment):
        raise ConfigurationError(
            f"{where} has a path: the address of a fetcher serve has none, that of a cache has placeholders such as "
            f"{where}/{{path}}"
        )
    return where


def peers_named(text: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of peers at `dns://NAME:PORT`; None for an address of another kind.

    Raises ConfigurationError, which does not repeat the text: it may hold a password.
    """
    if (scheme := text.partition("://")[0].lower()) not in NAMED:
        return None
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.hostname and parts.port and "@" not in parts.netloc and not (parts.path or parts.query or parts.fragment):
            return NAMED[scheme], parts.hostname, parts.port
    raise ConfigurationError("a name of peers is malformed; write dns://cache.models:8650, or dns+https://cache.models:8650")


def _web_address(text: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise ConfigurationError("a mirror is a web address; write http://node:8650, dns://name:8650, or https://cache/{path}")


def is_served(mirror: str) -> bool:
    """Whether the mirror at this address is a peer, a `fetcher serve`: that of a cache has placeholders."""
    return "{" not in mirror


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))


def parse_expect(text: str) -> tuple[str, Digest]:
    """Parse `PATH=sha256:HEX`. Raises ConfigurationError."""
    path, separator, digest = text.rpartition("=")
    if not separator or not path:
        raise ConfigurationError(f"{text!r} does not have the form PATH=sha256:HEX")
    return path, Digest.parse(digest)


def parse_mount(text: str) -> tuple[str, Path]:
    """Parse `CLAIM=DIR`. Raises ConfigurationError."""
    claim, separator, directory = text.partition("=")
    if not separator or not claim or not directory:
        raise ConfigurationError(f"{text!r} does not have the form CLAIM=DIR")
    return claim, Path(directory)
