"""Every option of `fetcher`, and the settings made from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fetcher.command.common_options import JSON
from fetcher.command.options import Option
from fetcher.errors import ConfigurationError, UsageError
from fetcher.quantities import (
    parse_amount,
    parse_duration,
    parse_endpoint,
    parse_number,
    parse_rate,
    parse_seconds,
    parse_size,
)
from fetcher.settings import (
    LEAST_MEMORY,
    MOST_CONNECTIONS,
    Part,
    Settings,
    Signer,
    default_cache_dir,
    hub_cache_dir,
    parse_expect,
    parse_mirror,
    parse_mount,
    parse_part,
)


def _memory(text: str) -> int:
    if (limit := parse_size(text)) < LEAST_MEMORY:
        raise ConfigurationError(f"{text} is too little memory for buffers; give 16Mi or more")
    return limit


def _percentage(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%?", text)
    if not match or not 0 < float(match[1]) <= 100:
        raise ConfigurationError(f"{text!r} is not a percentage above 0 and up to 100; write 1% or 0.5%")
    return float(match[1])


SELECTION = (
    Option(
        "revision",
        "branch, tag, commit or refs/pr/N of a Hub repository; generation or version of one object in a store",
        metavar="REV",
    ),
    Option("include", "fetch only files that match this pattern; may be repeated", metavar="GLOB", repeated=True),
    Option("exclude", "skip files that match this pattern; may be repeated", metavar="GLOB", repeated=True),
)
ROOT = (
    Option("cache_dir", "root of the cache; the artifact is placed in DIR/<cache-key>", read=Path, metavar="DIR"),
    JSON,
)
CLUSTER = (
    Option("kubeconfig", "kubeconfig of the cluster (default: KUBECONFIG, ~/.kube/config, or the pod's own)", Path, "FILE"),
    Option("namespace", "only the models of this namespace", metavar="NAMESPACE"),
    Option("model", "one model, with the phase, the reason and the message of each node", metavar="[NAMESPACE/]NAME"),
    JSON,
)
SORT = Option(
    "sort",
    "order: by key, largest first, least recently used first, or by URI (default key)",
    choices=("key", "size", "used", "uri"),
)
FULL = Option("full", "also recompute the published digests", switch=True)
SAMPLE = Option(
    "sample", "compare only this percentage of the chunks, chosen at random, and at least one", _percentage, metavar="PERCENT"
)
MAX_RATE = Option("max_rate", "maximum bytes read per second, such as 200M; 0 for no limit", parse_rate, "RATE")
REPAIR = Option("repair", "fetch damaged chunks again, from the revision that the manifest records", switch=True)
EXPECT_FILE = Option(
    "expect_file",
    "require the digests of a list of sha256sum, or of a signature: a local file, or a file of the artifact",
    metavar="FILE",
)
SIGNERS = (
    Option("signing_key", "require a signature, by default model.sig, of the owner of this public key", Path, "FILE"),
    Option("signing_certificates", "the same, of someone whom these certificates vouch for", Path, "FILE"),
    Option("signing_identity", "the same, of this identity by Sigstore; needs --signing-issuer", metavar="IDENTITY"),
    Option("signing_issuer", "the OpenID Connect issuer that vouches for --signing-identity", metavar="URL"),
)
PLACE = (
    Option("dest", "place the artifact in DIR itself, which may be a mount point", read=Path, metavar="DIR"),
    Option("layout", "plain files, or the Hub's cache layout under --cache-dir", choices=("flat", "hf-cache")),
    Option(
        "expect",
        "require this digest for a file; may be repeated",
        read=parse_expect,
        metavar="PATH=sha256:HEX",
        repeated=True,
    ),
    EXPECT_FILE,
    *SIGNERS,
    Option("require_digests", "fail if a file has no digest from the source, --expect or --expect-file", switch=True),
    Option("require_checksums", "fail if a file has no such digest, and no checksum (CRC or MD5) from its store", switch=True),
    Option("accept_unverified", "use a cached artifact that was adopted without asking the source", switch=True),
    Option("pvc_mount", "mount point of a claim in a pvc:// URI; may be repeated", parse_mount, "CLAIM=DIR", repeated=True),
)
PARTS = (
    Option("part", "fetch part I of N, from 0, of an artifact that N processes fetch together", parse_part, "I/N"),
    Option(
        "parts",
        "the same, for an Indexed Job: N, and the part from JOB_COMPLETION_INDEX",
        partial(parse_number, 1, 999_999),
        "N",
    ),
)
DEDUPE = Option(
    "dedupe",
    "take files that another artifact of the cache has: as clones or copies (the default), as hard links, or never",
    choices=("clone", "link", "off"),
)
LIMIT_RATE = Option(
    "limit_rate", "maximum bytes per second over all connections, such as 200M; 0 for no limit", parse_rate, "RATE"
)
MEMORY_LIMIT = Option("memory_limit", "maximum memory for all buffers together (default 256Mi)", _memory, "SIZE")
TRANSFER = (
    Option(
        "max_concurrency",
        "maximum connections; the actual number adapts to the link (default 32)",
        partial(parse_number, 1, MOST_CONNECTIONS),
        "N",
    ),
    LIMIT_RATE,
    MEMORY_LIMIT,
    Option(
        "page_cache",
        "keep written files in the page cache, or drop them as they are synced",
        choices=("auto", "keep", "drop"),
    ),
    Option("timeout_stall", "drop a connection after this long without data (default 30s)", parse_seconds, "SECONDS"),
    Option("retry_for", "give up after this long without progress (default 5m)", parse_duration, "DURATION"),
    Option("lease_wait", "maximum wait for another fetch of the same artifact (default: no limit)", parse_duration, "DURATION"),
    Option(
        "lease_stale",
        "take over from a process without a heartbeat for this long (default 60s; 180s on a network filesystem)",
        parse_seconds,
        "DURATION",
    ),
)
MIRRORS = (
    Option(
        "mirrors",
        "where the same bytes are nearer: a `fetcher serve`, dns://NAME:PORT for several, or a cache as https://cache/{path}; "
        "may be repeated",
        parse_mirror,
        metavar="URL",
        repeated=True,
        each="mirror",
    ),
    Option("mirror_secret_file", "show the secret in this file to mirrors that are a `fetcher serve`", Path, "FILE"),
    Option("mirror_ca", "the authorities that vouch for such mirrors, as PEM (default: those of the system)", Path, "FILE"),
    Option("mirror_cert", "show such mirrors this certificate; needs --mirror-key", Path, "FILE"),
    Option("mirror_key", "the key of --mirror-cert", Path, "FILE"),
)
FETCH = (
    Option(
        "refresh",
        "use a cached artifact without asking the source (the default), or ask for a newer version",
        choices=("if-not-present", "on-change"),
    ),
    Option(
        "resolved",
        "fetch this commit or digest, which the revision stood for when it was resolved, under the key of the revision",
        metavar="REV",
    ),
    Option("hard_link", "hard-link files of a local source instead of copying them; a later edit changes both", switch=True),
    DEDUPE,
    *TRANSFER,
    *MIRRORS,
)
LIMITS = (
    Option("max_size", "maximum size of the cache, in bytes or percent of its filesystem", parse_amount, "SIZE|PERCENT"),
    Option("min_free", "space to leave free on the filesystem of the cache", parse_amount, "SIZE|PERCENT"),
    Option("min_idle", "evict only what was unused for this long (default 1h)", parse_duration, "DURATION"),
)
POD_UID = Option("pod_uid", "the pod that holds the artifact; without an end until `fetcher release`", metavar="UID")
HOLD = (Option("hold", "hold the artifact for this long: it is not evicted", parse_duration, "DURATION"), POD_UID)
FOR = Option("for", "how long (default: for good)", parse_duration, "DURATION")
UNUSED_FOR = Option("unused_for", "remove what was unused for this long", parse_duration, "DURATION")
PRUNE = (
    Option("to", "remove least recently used artifacts until the cache is this small", parse_amount, "SIZE|PERCENT"),
    UNUSED_FOR,
    LIMITS[2],
)
GC = (
    replace(UNUSED_FOR, help="delete an unfinished fetch after this long without progress (default 24h)"),
    Option("kubelet_pods", "end the holds of pods that are gone from this directory of the kubelet", read=Path, metavar="DIR"),
    replace(POD_UID, help="the pod that runs this command; it must be in --kubelet-pods"),
    Option("every", "do it again and again, with this long between, until a signal comes", parse_seconds, "DURATION"),
)
DRY_RUN = Option("dry_run", "only show what would be removed", switch=True)
FORCE = Option("force", "also remove what was used recently, if the filesystem does not tell who reads it", switch=True)
WARM = Option(
    "warm",
    "after a fetch, read the artifact into the page cache, as `loader warm` does; in a list, show how much of it is there",
    switch=True,
)
ADOPT = (
    Option("uri", "the files' source, as it will be fetched (default: the repository that a Hub cache names)", metavar="URI"),
    Option("complete", "fetch the files that are missing or differ; without it they are an error", switch=True),
    Option("offline", "do not ask the source; `fetch` uses the artifact only with --accept-unverified", switch=True),
    Option("link", "hard-link the files instead of copying them; a later edit of one changes both", switch=True),
    Option("move", "remove the adopted files from DIR after they were published; copy only to another filesystem", switch=True),
)
SERVE = (
    # Not `port` and `address`: Kubernetes sets FETCHER_PORT in pods beside a Service of the name fetcher.
    Option(
        "listen", "where to listen; port 0 is any free one (default 127.0.0.1:8650)", parse_endpoint, metavar="ADDRESS:PORT"
    ),
    Option("auth_secret_file", "serve those who show a secret of this file, one a line, as Bearer token", Path, "FILE"),
    Option("token_review", "serve those whose Kubernetes token is for this audience; needs --token-user", metavar="AUDIENCE"),
    Option(
        "token_user",
        "a user whose tokens are accepted, such as system:serviceaccount:NAMESPACE:NAME; may be repeated",
        metavar="NAME",
        repeated=True,
    ),
    Option("tls_cert", "serve TLS with this chain of certificates in PEM, read again when it changes", Path, "FILE"),
    Option("tls_key", "the key of --tls-cert in PEM", Path, "FILE"),
    Option("tls_client_ca", "serve those with a certificate of one of these authorities", Path, "FILE"),
    Option(
        "max_uploads",
        "maximum files sent at a time, half of them to one caller (default 64)",
        partial(parse_number, 1, 512),
        "N",
    ),
    LIMIT_RATE,
    replace(MEMORY_LIMIT, help="maximum memory for connections and buffers together (default 128Mi)"),
    Option("drain_for", "at a signal, finish what is being sent within this time (default 20s)", parse_duration, "DURATION"),
)


def signed_list(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `signer` and `expect_file`, as far as `options` have them. Raises UsageError."""
    given = {option.name.removeprefix("signing_"): options[option.name] for option in SIGNERS if option.name in options}
    listed = {"expect_file": options["expect_file"]} if "expect_file" in options else {}
    return {"expect_file": "model.sig", **listed, "signer": Signer(**given)} if given else listed


def settings_from(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Make the settings from options and environment. Raises ConfigurationError."""
    known = {
        option.name: options[option.name]
        for option in (*PLACE, *FETCH, PARTS[0], *LIMITS, *HOLD)
        if option.name in options and option not in SIGNERS and option.name not in ("expect", "pvc_mount")
    }
    layout = options.get("layout", "flat")
    cache_dir = options.get("cache_dir") or (hub_cache_dir(environ) if layout == "hf-cache" else None)
    if cache_dir is None:
        # --dest is its own staging root, so neither a cache root nor a HOME is needed.
        cache_dir = options["dest"] if "dest" in options else default_cache_dir(environ)
    if "dest" in known:
        known["dest"] = known["dest"].absolute()
    if "parts" in options:
        known["part"] = _indexed_part(options, environ)
    return Settings(
        cache_dir=cache_dir.absolute(),
        expect=dict(options.get("expect", ())),
        pvc_mounts=dict(options.get("pvc_mount", ())),
        **known | signed_list(options),
    )


def _indexed_part(options: Mapping[str, Any], environ: Mapping[str, str]) -> Part:
    """Return the part of a pod of an Indexed Job. Raises UsageError, ConfigurationError."""
    index = environ.get("JOB_COMPLETION_INDEX")
    if "part" in options:
        raise UsageError("--part and --parts both say which part this is; give one of them")
    if index is None:
        raise UsageError("--parts needs JOB_COMPLETION_INDEX, which an Indexed Job sets; give --part I/N elsewhere")
    return parse_part(f"{index}/{options['parts']}")
