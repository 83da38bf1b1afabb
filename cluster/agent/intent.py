"""What an entry of the NodeCache means: its ModelCache, and the credential in its Secret, asked for by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.agent.states import Wanted
from cluster.allowing import refuse_source
from cluster.client import Api, Unavailable, endpoint_of
from cluster.credentials import access_of
from cluster.reaching import reach_of
from cluster.resources import MODEL_CACHE, ModelCacheSpec
from cluster.secrets import secret_name, secret_of
from fetcher.artifact import ArtifactRef
from fetcher.errors import ConfigurationError, FetchError, OtherRevision
from fetcher.reach import Reach
from fetcher.sources.access import Access

MODELS = endpoint_of(MODEL_CACHE)


@dataclass(frozen=True, slots=True)
class Account:
    """The service account of this agent."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Described:
    """A ModelCache, the data of its Secret, and the versions of both."""

    spec: ModelCacheSpec
    data: Mapping[str, bytes] = field(repr=False)
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """What is fetched, how it is checked (`require`: None, Checksum or Digest), as whom, and where that may lead."""

    ref: ArtifactRef
    require: str
    access: Access = field(repr=False)
    reach: Reach


async def described(api: Api, wanted: Wanted, account: Account) -> Described:
    """Ask for the ModelCache of an entry, and for its Secret.

    Raises ApiError, SecretMissing, SecretForbidden, ConfigurationError for an object that cannot be read.
    """
    spec, version = await _model(api, wanted)
    if (name := secret_name(spec.auth)) is None:
        return Described(spec, {}, (version,))
    secret = await secret_of(api, wanted.namespace, name, [(account.namespace, account.name)])
    return Described(spec, secret.values, (version, secret.version))


async def versions_of(api: Api, wanted: Wanted, account: Account) -> tuple[str, ...]:
    """Return the versions of what `described` reads, or the reason word of why it cannot. Raises Unavailable."""
    try:
        return (await described(api, wanted, account)).versions
    except Unavailable:
        raise
    except FetchError as error:
        return (error.reason,)


def intent_of(
    wanted: Wanted, known: Described, allowed: Iterable[str], environ: Mapping[str, str], *, allow_loopback: bool
) -> Intent:
    """Return what `wanted` means, with what sources see of the environment. Pure.

    Raises SourceNotAllowed, OtherRevision if the ModelCache means another artifact by now, ConfigurationError, UsageError.
    """
    allowed, source = tuple(allowed), known.spec.source
    ref = ArtifactRef(source.uri, source.revision, source.include, source.exclude)
    if ref.key != wanted.key:
        raise OtherRevision(
            f"ModelCache {wanted.namespace}/{wanted.model} asks for another artifact by now, {ref.key}; wait for the controller"
        )
    refuse_source(ref.uri, allowed, allow_loopback=allow_loopback)
    require = known.spec.verification.require if known.spec.verification is not None else "None"
    access = access_of(ref.uri, known.spec.auth, known.data, allowed=allowed)
    return Intent(ref, require, access, reach_of(ref.uri, access, allowed, environ, allow_loopback=allow_loopback))


async def _model(api: Api, wanted: Wanted) -> tuple[ModelCacheSpec, str]:
    document = await api.get(MODELS, wanted.model, wanted.namespace)
    try:
        model = MODEL_CACHE.read(document)
    except ValueError as error:
        raise ConfigurationError(
            f"ModelCache {wanted.namespace}/{wanted.model} cannot be read: {error}; upgrade the agent"
        ) from None
    return model.spec, f"{model.metadata.uid}/{model.metadata.generation}"
