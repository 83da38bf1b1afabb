"""Tokens of Entra ID by azure-identity: a service principal, a workload's or a machine's identity, a login of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fetcher.errors import ConfigurationError, FetchError, Unauthorized, Unreachable
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.tokens import Token, Tokens, silence, static

SCOPE = "https://storage.azure.com/.default"
_INSTALL = "pip install 'weightlift[azure]'"
_NAMES = ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH", "FEDERATED_TOKEN_FILE")


def tokens_for(access: AzureAccess, environ: Mapping[str, str], *, searching: bool, secure: bool) -> Tokens:
    """The tokens to use besides a SAS or a key, which need none. `searching`: the identity of the process may be used.

    A token is sent over TLS only.
    """
    if access.sas is not None or access.key is not None or not secure:
        return static(None, access.given_by)
    if access.credential is not None:
        return Tokens(partial(_token, access.credential), access.given_by)
    if not searching:
        return static(None, access.given_by)
    return Tokens(_Searching(partial(_credential, _named(environ))), "azure-identity")


def named_credential(environ: Mapping[str, str]) -> Any:
    """The credential of the client that AZURE_CLIENT_ID names; None if it names none. Raises ConfigurationError."""
    names = _named(environ)
    if not names["CLIENT_ID"]:
        return None
    credential, _ = _credential(names)
    if credential is None:
        raise ConfigurationError(f"AZURE_CLIENT_ID needs azure-identity, which is not installed: {_INSTALL}")
    return credential


def _named(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: environ.get(f"AZURE_{name}", "").strip() or environ.get(f"AZ_{name}", "").strip() for name in _NAMES}


class _Searching:
    """Finds a credential at the first call. For `Tokens`, one call at a time."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._credential: Any = None
        self._sure = False

    def __call__(self) -> Token | None:
        if self._credential is None:
            self._credential, self._sure = self._find()
        if self._credential is None:
            return None
        try:
            return _token(self._credential)
        except FetchError:
            if self._sure:
                raise
            return None  # no identity anywhere: the request is anonymous


def _token(credential: Any) -> Token:
    """A token. Blocks. Raises Unauthorized and Unreachable, which do not show what the identity service said."""
    try:
        got = credential.get_token(SCOPE)
    except Exception as error:  # noqa: BLE001 - the caller's credential may raise anything
        if _unanswered(error):
            raise Unreachable(
                f"Entra ID does not answer ({type(error).__name__}); check the network, the proxy and AZURE_AUTHORITY_HOST"
            ) from None
        raise Unauthorized(
            f"Entra ID gives no token ({type(error).__name__}); check tenant, client and secret, or the workload's identity"
        ) from None
    return Token(got.token, float(got.expires_on))


def _unanswered(error: Exception) -> bool:
    """Whether the identity service was not reached, so that another try may help."""
    try:
        from azure.core.exceptions import ServiceRequestError, ServiceResponseError
    except ImportError:
        return False
    return isinstance(error, ServiceRequestError | ServiceResponseError)


def _credential(names: Mapping[str, str]) -> tuple[Any, bool]:
    """The credential of the process, and whether the user named it. (None, False) without azure-identity."""
    named = bool(names["TENANT_ID"] and names["CLIENT_ID"])
    how = next((name for name in ("CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH", "FEDERATED_TOKEN_FILE") if names[name]), None)
    try:
        from azure import identity
    except ImportError:
        if named and how:
            raise ConfigurationError(f"AZURE_{how} needs azure-identity, which is not installed: {_INSTALL}") from None
        return None, False
    silence("azure")  # it warns of each identity that is not there
    tenant, client = names["TENANT_ID"], names["CLIENT_ID"]
    if named and how == "CLIENT_SECRET":
        return identity.ClientSecretCredential(tenant, client, names[how]), True
    if named and how == "CLIENT_CERTIFICATE_PATH":
        return identity.CertificateCredential(tenant, client, names[how]), True
    if named and how == "FEDERATED_TOKEN_FILE":
        return identity.WorkloadIdentityCredential(tenant_id=tenant, client_id=client, token_file_path=names[how]), True
    return identity.DefaultAzureCredential(managed_identity_client_id=client or None), False
