"""The credential of an identity, from KServe's Secrets: each asked for by name."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.client import Api, Forbidden, Missing
from cluster.client.endpoints import SERVICE_ACCOUNTS
from cluster.kserve.agent import Identity
from cluster.kserve.credentials import STORAGE_SECRET, of_account, of_entry
from cluster.secrets import SecretData, SecretForbidden, SecretMissing, permission, secret_of

_MOST = 16
"""Secrets of a service account that are read."""


async def credential_of(api: Api, identity: Identity, namespace: str, accounts: Sequence[tuple[str, str]]) -> SecretData | None:
    """Return the credential of `identity` by the keys of a ModelCache's Secret; None if it has none.

    `namespace` is where its Secrets are, `accounts` are who needs them. Raises SecretMissing, SecretForbidden,
    ConfigurationError, ApiError.
    """
    if identity.storage_key is not None:
        secret = await secret_of(api, namespace, STORAGE_SECRET, accounts)
        where = f"Secret {namespace}/{STORAGE_SECRET}"
        return SecretData(of_entry(secret.values, identity.storage_key, dict(identity.parameters), where), secret.version)
    if identity.service_account is not None:
        return await _of_service_account(api, namespace, identity.service_account, accounts)
    return None


async def _of_service_account(api: Api, namespace: str, name: str, accounts: Sequence[tuple[str, str]]) -> SecretData:
    try:
        account = await api.get(SERVICE_ACCOUNTS, name, namespace)
    except Missing:
        raise SecretMissing(f"ServiceAccount {namespace}/{name} does not exist; create it") from None
    except Forbidden:
        raise SecretForbidden(
            f"ServiceAccount {namespace}/{name} may not be read, so its Secrets are not known; give the cache a storage key, "
            f"or allow it with: {permission(namespace, name, accounts, resource='serviceaccounts')}"
        ) from None
    found: dict[str, bytes] = {}
    versions = [str(account["metadata"].get("resourceVersion"))]
    for each in [str(each.get("name")) for each in account.get("secrets") or ()][:_MOST]:
        secret = await secret_of(api, namespace, each, accounts)
        found |= of_account(secret.values, secret.annotations)
        versions.append(secret.version)
    return SecretData(found, ",".join(versions))
