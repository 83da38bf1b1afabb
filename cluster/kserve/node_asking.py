"""Asks the source of an artifact what it is, as one identity."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.allowing import refuse_source
from cluster.client import Api
from cluster.credentials import access_of
from cluster.kserve.agent import Artifact, Identity
from cluster.kserve.secrets import credential_of
from cluster.kserve.translating import Pin, secret_of
from cluster.listing import listing_digest
from cluster.resources.model import Auth, SecretName
from fetcher.artifact import ArtifactRef, total_size
from fetcher.engine import preview
from fetcher.errors import Unreachable
from fetcher.settings import Settings
from fetcher.sources import open_source

_LONGEST = 300.0
"""Seconds for one source: a listing of 100,000 files takes a minute."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How sources are asked. `environ` has proxies and authorities, never credentials. `allowed`: prefixes of sources.

    `account`: the namespace and name of our service account. `job_namespace`: of the credentials of the cluster's caches.
    """

    environ: Mapping[str, str] = field(repr=False)
    allowed: tuple[str, ...]
    account: tuple[str, str]
    job_namespace: str
    allow_loopback: bool
    retry_for: float


async def ask(api: Api, artifact: Artifact, identity: Identity, how: Asking) -> Pin:
    """Return what the artifact is at its source. Raises FetchError."""
    refuse_source(artifact.uri, how.allowed, allow_loopback=how.allow_loopback)
    namespace = identity.namespace or how.job_namespace
    secret = await credential_of(api, identity, namespace, [how.account])
    name = secret_of(artifact, identity)
    auth = Auth(secret_ref=SecretName(name)) if name is not None else None
    access = access_of(artifact.uri, auth, secret.values if secret is not None else {}, allowed=how.allowed)
    ref, settings = ArtifactRef(artifact.uri), Settings(cache_dir=Path("/nowhere"), max_concurrency=4, retry_for=how.retry_for)
    source = open_source(ref, settings, how.environ, credentials=access)
    try:
        async with asyncio.timeout(_LONGEST):
            answer = await preview.answered(source, ref, settings)
    except TimeoutError:
        raise Unreachable(f"the source did not list its files within {_LONGEST:.0f} s; it is asked again") from None
    return Pin(answer.listing.revision, listing_digest(answer.chosen), total_size(answer.chosen))
