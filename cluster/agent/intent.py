"""What an entry of the NodeCache means: its ModelCache, and the credential in its Secret, asked for by name."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.agent.pinned import OtherContent
from cluster.allowing import refuse_source
from cluster.client import Api, Forbidden, Missing, Unavailable, endpoint_of
from cluster.client.endpoints import SECRETS
from cluster.credentials import access_of
from cluster.resources import MODEL_CACHE, ModelCacheSpec, Wanted
from fetcher.artifact import ArtifactRef
from fetcher.errors import ConfigurationError, FetchError
from fetcher.sources.access import Access

MODELS = endpoint_of(MODEL_CACHE)


class SecretMissing(FetchError):
    """The Secret of a ModelCache does not exist."""

    reason = "SecretMissing"
    exit_code = 78


class SecretForbidden(FetchError):
    """The namespace has not allowed the agent to read the Secret."""

    reason = "SecretForbidden"
    exit_code = 77


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
    """What is fetched, how it is checked (`require`: None, Checksum or Digest), and as whom."""

    ref: ArtifactRef
    require: str
    access: Access = field(repr=False)


async def described(api: Api, wanted: Wanted, account: Account) -> Described:
    """Ask for the ModelCache of an entry, and for its Secret.

    Raises ApiError, SecretMissing, SecretForbidden, ConfigurationError for an object that cannot be read.
    """
    spec, version = await _model(api, wanted)
    if (secret := secret_of(spec)) is None:
        return Described(spec, {}, (version,))
    data, of_secret = await _secret(api, wanted.namespace, secret, account)
    return Described(spec, data, (version, of_secret))


async def versions_of(api: Api, wanted: Wanted, account: Account) -> tuple[str, ...]:
    """Return the versions of what `described` reads, or the reason word of why it cannot. Raises Unavailable."""
    try:
        return (await described(api, wanted, account)).versions
    except Unavailable:
        raise
    except FetchError as error:
        return (error.reason,)


def intent_of(wanted: Wanted, known: Described, allowed: Iterable[str], *, allow_loopback: bool) -> Intent:
    """Return what `wanted` means. Pure.

    Raises SourceNotAllowed, OtherContent if the ModelCache means another artifact by now, ConfigurationError, UsageError.
    """
    allowed, source = tuple(allowed), known.spec.source
    ref = ArtifactRef(source.uri, source.revision, source.include, source.exclude)
    if ref.key != wanted.key:
        raise OtherContent(
            f"ModelCache {wanted.namespace}/{wanted.model} asks for another artifact by now, {ref.key}; wait for the controller"
        )
    refuse_source(ref.uri, allowed, allow_loopback=allow_loopback)
    require = known.spec.verification.require if known.spec.verification is not None else "None"
    return Intent(ref, require, access_of(ref.uri, known.spec.auth, known.data, allowed=allowed))


def secret_of(spec: ModelCacheSpec) -> str | None:
    """Return the name of the Secret of a ModelCache; None without one."""
    if spec.auth is None:
        return None
    named = spec.auth.secret_key_ref or spec.auth.secret_ref
    return named.name if named is not None else None


async def _model(api: Api, wanted: Wanted) -> tuple[ModelCacheSpec, str]:
    document = await api.get(MODELS, wanted.model, wanted.namespace)
    try:
        model = MODEL_CACHE.read(document)
    except ValueError as error:
        raise ConfigurationError(
            f"ModelCache {wanted.namespace}/{wanted.model} cannot be read: {error}; upgrade the agent"
        ) from None
    return model.spec, f"{model.metadata.uid}/{model.metadata.generation}"


async def _secret(api: Api, namespace: str, name: str, account: Account) -> tuple[Mapping[str, bytes], str]:
    try:
        document = await api.get(SECRETS, name, namespace)
    except Missing:
        raise SecretMissing(f"Secret {namespace}/{name} does not exist; create it") from None
    except Forbidden:
        allow = permission(namespace, name, account)
        raise SecretForbidden(f"Secret {namespace}/{name} may not be read; allow it with: {allow}") from None
    version = f"{document['metadata'].get('uid')}/{document['metadata'].get('resourceVersion')}"
    try:
        return {key: base64.b64decode(text, validate=True) for key, text in (document.get("data") or {}).items()}, version
    except (ValueError, TypeError, AttributeError):  # binascii.Error is a ValueError
        raise ConfigurationError(f"the data of Secret {namespace}/{name} is not base64; write it again") from None


def permission(namespace: str, secret: str, account: Account) -> str:
    """Return the commands that let the agent read one Secret."""
    role = f"weightlift-{secret}"[:63]
    return (
        f"kubectl -n {namespace} create role {role} --verb=get --resource=secrets --resource-name={secret} && "
        f"kubectl -n {namespace} create rolebinding {role} --role={role} --serviceaccount={account.namespace}:{account.name}"
    )
