"""The Secret of a ModelCache, asked for by name: nobody here may list Secrets."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.client import Api, Forbidden, Missing
from cluster.client.endpoints import SECRETS
from cluster.resources.model import Auth
from fetcher.errors import ConfigurationError, FetchError


class SecretMissing(FetchError):
    """The Secret of a ModelCache does not exist."""

    reason = "SecretMissing"
    exit_code = 78


class SecretForbidden(FetchError):
    """The namespace has not allowed us to read the Secret."""

    reason = "SecretForbidden"
    exit_code = 77


@dataclass(frozen=True, slots=True)
class SecretData:
    """The values of a Secret, its `version`, which changes with each change of it, and its annotations."""

    values: Mapping[str, bytes] = field(repr=False)
    version: str
    annotations: Mapping[str, str] = field(default_factory=dict)


def secret_name(auth: Auth | None) -> str | None:
    """Return the name of the Secret that `auth` means; None without one."""
    named = auth and (auth.secret_key_ref or auth.secret_ref)
    return named.name if named else None


async def secret_of(api: Api, namespace: str, name: str, accounts: Sequence[tuple[str, str]]) -> SecretData:
    """Return a Secret. `accounts` are the namespace and the name of the service accounts that need it.

    Raises SecretMissing, SecretForbidden, ConfigurationError for data that is no base64, ApiError.
    """
    try:
        document = await api.get(SECRETS, name, namespace)
    except Missing:
        raise SecretMissing(f"Secret {namespace}/{name} does not exist; create it") from None
    except Forbidden:
        lines = permission(namespace, name, accounts)
        raise SecretForbidden(f"Secret {namespace}/{name} may not be read; allow it with: {lines}") from None
    metadata = document["metadata"]
    version = f"{metadata.get('uid')}/{metadata.get('resourceVersion')}"
    try:
        values = {key: base64.b64decode(text, validate=True) for key, text in (document.get("data") or {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(f"the data of Secret {namespace}/{name} is not base64; write it again") from None
    return SecretData(values, version, metadata.get("annotations") or {})


def permission(namespace: str, name: str, accounts: Sequence[tuple[str, str]], *, resource: str = "secrets") -> str:
    """Return the commands that let `accounts` read one Secret, or one object of another `resource`, and no other."""
    role = f"weightlift-{name}"[:63]
    subjects = " ".join(f"--serviceaccount={':'.join(each)}" for each in accounts)
    return (
        f"kubectl -n {namespace} create role {role} --verb=get --resource={resource} --resource-name={name} && "
        f"kubectl -n {namespace} create rolebinding {role} --role={role} {subjects}"
    )
