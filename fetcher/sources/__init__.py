"""Sources of artifacts. `base` defines their interface; `open_source` chooses one by the URI's scheme.

Decisions that may surprise:

- Metadata comes without `HfApi`; `huggingface_hub` only finds the token. Its `list_repo_tree` has no deadline, sleeps in a
  retry loop that no signal interrupts, and sends the token to any host that the next page's Link names. Plain GETs over our
  own transport have one retry policy and one way to cancel, and Links stay at their origin.
- The Hub is asked with one HEAD for each file, then with ranges at the signed address. The address is renewed on 401, 403 and
  410, and shortly before a known expiry.
- An `http(s)` file is probed by its first range, whose answer is kept and continued: a small file costs one request.
- A web page in the place of a file is `Unauthorized`, since logins answer 200. A pin says that the page is meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fetcher.artifact import ArtifactRef
from fetcher.reach import Reach
from fetcher.settings import Settings, hub_cache_dir
from fetcher.sources.access import Access, HttpAccess, fitting
from fetcher.sources.addresses import HubAddress, hub_address, is_blob_address, is_offline, scheme_of
from fetcher.sources.base import Source

if TYPE_CHECKING:
    from fetcher.transport.client import HttpTransport


def open_source(
    ref: ArtifactRef,
    settings: Settings,
    environ: Mapping[str, str] = os.environ,
    *,
    credentials: Access | None = None,
    pin: str | None = None,
    reach: Reach | None = None,
) -> Source:
    """The source that `ref.uri` names, with the mirrors of `settings`, and nothing but `settings.resolved` if that is set.

    `pin` replaces the requested revision of a repository. Sends no request. Files of this machine need no mirrors.

    With `credentials`, no other credential is looked for or used; without, the source looks for those of the process. `reach`:
    where its connections may lead, if not everywhere.
    With `HF_HUB_OFFLINE`, a Hub artifact comes from the Hub's cache. Raises UsageError, UnsupportedScheme, ConfigurationError,
    and Offline or NotFound if the Hub's cache lacks the artifact.
    """
    if settings.resolved is not None:
        from fetcher.sources.pinned import pinned

        source = _open(ref, settings, environ, credentials=credentials, pin=pin or settings.resolved, reach=reach)
        return pinned(source, ref, settings.resolved, "")
    return _open(ref, settings, environ, credentials=credentials, pin=pin, reach=reach)


def _open(
    ref: ArtifactRef,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    credentials: Access | None,
    pin: str | None,
    reach: Reach | None,
) -> Source:
    scheme = scheme_of(ref.uri)
    if scheme in ("file", "pvc"):
        from fetcher.sources import local

        return local.open_local(ref) if scheme == "file" else local.open_claim(ref, settings)
    address = hub_address(ref, environ)
    if address is not None and pin is not None:
        address = replace(address, revision=pin)
    if address is not None and is_offline(environ):
        from fetcher.sources.local import LocalSource
        from fetcher.sources.snapshots import find_snapshot

        snapshot = find_snapshot(address, hub_cache_dir(environ))
        return LocalSource(snapshot.directory, listing=snapshot.listing)
    from fetcher.sources.mirrors import mirrored

    transport = _transport(settings, environ, reach)
    return mirrored(_remote(ref, transport, environ, address, credentials=credentials, pin=pin), ref, settings, environ)


def _remote(
    ref: ArtifactRef,
    transport: HttpTransport,
    environ: Mapping[str, str],
    address: HubAddress | None,
    *,
    credentials: Access | None,
    pin: str | None,
) -> Source:
    """The source of `ref.uri`, which is on another machine: the repository `address`, if it is one of the Hub."""
    scheme = scheme_of(ref.uri)
    if scheme == "s3":
        from fetcher.sources.s3 import S3Access, open_s3

        return open_s3(ref, transport, environ, fitting(credentials, S3Access, scheme))
    if scheme == "oci":
        from fetcher.sources.oci import OciAccess, open_oci

        return open_oci(ref, transport, environ, fitting(credentials, OciAccess, scheme), pin=pin)
    if scheme == "gs":
        from fetcher.sources.gcs import open_gcs
        from fetcher.sources.gcs.access import GcsAccess

        return open_gcs(ref, transport, environ, access=fitting(credentials, GcsAccess, scheme))
    if scheme == "az" or is_blob_address(ref.uri):
        from fetcher.sources.azure import open_azure
        from fetcher.sources.azure.access import AzureAccess

        return open_azure(ref, transport, environ, access=fitting(credentials, AzureAccess, scheme))
    if address is not None:
        from fetcher.sources.hub import HubSource

        return HubSource(address, transport, environ, access=fitting(credentials, HttpAccess, scheme))
    from fetcher.sources.web import WebSource

    return WebSource(ref, transport, environ, access=fitting(credentials, HttpAccess, scheme))


def _transport(settings: Settings, environ: Mapping[str, str], reach: Reach | None) -> HttpTransport:
    from fetcher.planning.memory import READ_BUFFER
    from fetcher.transport.client import HttpTransport

    return HttpTransport(
        connections=settings.max_concurrency,
        timeout_stall=settings.timeout_stall,
        read_buffer=READ_BUFFER,
        environ=environ,
        reach=reach,
    )
