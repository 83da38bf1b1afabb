"""Asks the source of an artifact what it is, as one identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.allowing import refuse_source
from cluster.asking import listed
from cluster.client import Api
from cluster.credentials import access_of
from cluster.kserve.agent import Artifact, Identity
from cluster.kserve.secrets import credential_of
from cluster.kserve.translating import Pin, secret_of
from cluster.reaching import reach_of
from cluster.resources.model import Auth, SecretName
from fetcher.artifact import ArtifactRef, listing_digest, total_size


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
    reach = reach_of(artifact.uri, access, how.allowed, how.environ, allow_loopback=how.allow_loopback)
    answer = await listed(ArtifactRef(artifact.uri), access, how.environ, retry_for=how.retry_for, reach=reach)
    return Pin(answer.listing.revision, listing_digest(answer.chosen), total_size(answer.chosen))
