"""Credentials for Google Cloud Storage: a token, credentials of google-auth, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError, Unauthorized, Unreachable
from fetcher.sources.access import Access, is_token
from fetcher.sources.gcs.files import SCOPE, credentials_in
from fetcher.sources.tokens import Token, Tokens, silence, static
from fetcher.values import dataclass

_TOKEN_VARIABLES = ("GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN")
_NO_METADATA = ("1", "true", "yes")


@dataclass(frozen=True, slots=True)
class GcsAccess(Access):
    """An access token, credentials of google-auth (with the scope that they need), or neither: anonymous access.

    `payer` is the project that pays for requests to a bucket whose requester pays.
    """

    token: str | None = field(default=None, repr=False)
    credentials: Any = field(default=None, repr=False)
    payer: str | None = None
    given_by: str = "the caller"


def tokens_for(access: GcsAccess | None, environ: Mapping[str, str], *, emulated: bool) -> Tokens:
    """The tokens of `access`, or without it those of the process, in the order of Google's tools. Nothing is asked yet.

    A token in the environment, the file of GOOGLE_APPLICATION_CREDENTIALS, gcloud's file, the metadata service, none. An
    emulator gets none of the process.
    """
    if access is not None:
        if access.credentials is not None:
            return Tokens(partial(_refreshed, access.credentials), access.given_by)
        return static(_plain(access.token, access.given_by) if access.token else None, access.given_by)
    if emulated:
        return static(None, "nowhere")
    for variable in _TOKEN_VARIABLES:
        if token := environ.get(variable, "").strip():
            return static(_plain(token, variable), variable)
    if path := environ.get("GOOGLE_APPLICATION_CREDENTIALS", "").strip():
        return Tokens(
            _Loading(partial(credentials_in, path, "GOOGLE_APPLICATION_CREDENTIALS")), "GOOGLE_APPLICATION_CREDENTIALS"
        )
    if os.path.lexists(path := _gcloud_file(environ)):
        return Tokens(_Loading(partial(credentials_in, path, "gcloud")), f"gcloud's file {path}")
    if environ.get("NO_GCE_CHECK", "").strip().lower() in _NO_METADATA:
        return static(None, "nowhere")
    return Tokens(_Loading(partial(_from_metadata, named=_names_metadata(environ))), "the metadata service")


class _Loading:
    """Loads credentials at the first call, and refreshes them at each call. For `Tokens`, one call at a time."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._credentials: Any = None

    def __call__(self) -> Token | None:
        if self._credentials is None:
            self._credentials = self._load()
        return _refreshed(self._credentials) if self._credentials is not None else None


def _refreshed(credentials: Any) -> Token:
    """A new token. Blocks. Raises Unauthorized and Unreachable, which do not show what the identity service said."""
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.auth.transport.requests import Request

    try:
        credentials.refresh(Request())
    except GoogleAuthError as error:
        if isinstance(error, TransportError) or isinstance(error.__cause__, TransportError) or error.retryable:
            raise Unreachable(
                f"Google's identity service cannot be reached ({type(error).__name__}); check the network and the proxy"
            ) from None
        raise Unauthorized(
            f"Google refuses to renew the credentials ({type(error).__name__}); check the service account and its rights"
        ) from None
    expiry = credentials.expiry
    return Token(credentials.token, expiry.replace(tzinfo=UTC).timestamp() if expiry is not None else None)


def _names_metadata(environ: Mapping[str, str]) -> bool:
    """Whether the user says that there is a metadata service. GKE's starts seconds after a pod, so no answer is no absence."""
    return bool(environ.get("GCE_METADATA_HOST", "").strip())


def _from_metadata(*, named: bool) -> Any:
    """The credentials of the machine or of the pod's service account; None outside Google's cloud.

    Raises ConfigurationError without google-auth if the service is `named`.
    """
    try:
        from google.auth import compute_engine
        from google.auth.compute_engine import _metadata
        from google.auth.transport.requests import Request
    except ImportError:
        if named:
            raise ConfigurationError("GCE_METADATA_HOST needs google-auth; run pip install 'weightlift[gcs]'") from None
        return None
    silence("google.auth")  # it warns of each try
    if not named and not _metadata.ping(Request(), timeout=1, retry_count=2):  # type: ignore[no-untyped-call]
        return None
    return compute_engine.Credentials(scopes=[SCOPE])  # type: ignore[no-untyped-call]


def _gcloud_file(environ: Mapping[str, str]) -> str:
    """The file that `gcloud auth application-default login` writes."""
    folder = environ.get("CLOUDSDK_CONFIG") or Path(environ.get("HOME") or Path.home(), ".config", "gcloud")
    return str(Path(folder, "application_default_credentials.json"))


def _plain(token: str, given_by: str) -> str:
    if not is_token(token):
        raise ConfigurationError(f"the token (from {given_by}) contains characters that no token has; set it again")
    return token
