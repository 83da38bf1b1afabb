"""Finds the credentials and settings of S3 that the process has, in the order of Amazon's own tools.

Keys in the environment need no library. Everything else (profiles, SSO, web identity, EKS Pod Identity, ECS, instance metadata)
is found by botocore, whose import takes 0.15 s.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from fetcher.errors import ConfigurationError, Unreachable
from fetcher.sources.s3.access import S3Access, S3Keys

_HINTS = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE",
)  # fmt: skip
"""Variables that say where credentials are, if they are not in the environment."""
_METADATA_TRIES = {"metadata_service_timeout": 1.0, "metadata_service_num_attempts": 1}
"""Outside of EC2 nobody answers: the search ends after two seconds then."""


def found_access(environ: Mapping[str, str]) -> S3Access:
    """Return the access that `environ` and the files it names give. May block for seconds.

    Raises ConfigurationError, and Unreachable if a service that gives credentials does not answer.
    """
    session = None if _has_keys(environ) else _session(environ)
    settings = _Settings(environ, session)
    access = S3Access(
        region=settings.region,
        endpoint=settings.endpoint,
        requester_pays=environ.get("AWS_REQUEST_PAYER", "").lower() == "requester",
    )
    if _has_keys(environ):
        keys = S3Keys(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], environ.get("AWS_SESSION_TOKEN") or None)
        return replace(access, keys=keys, given_by="AWS_ACCESS_KEY_ID")
    if session is None:
        return access
    credentials = _credentials(session)
    if credentials is None:
        return access
    given_by = f"botocore ({credentials.method})"
    return replace(access, keys=_keys(credentials), given_by=given_by, renew=partial(_renewed, environ))


def _has_keys(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"))


def _renewed(environ: Mapping[str, str]) -> S3Keys | None:
    """The keys that there are now. A session of its own: botocore keeps keys until shortly before they should expire, and files
    that it has read."""
    credentials = _credentials(_session(environ))
    return _keys(credentials) if credentials is not None else None


def _credentials(session: Any) -> Any:
    with _answering():
        return session.get_credentials()


def _keys(credentials: Any) -> S3Keys:
    with _answering():
        frozen = credentials.get_frozen_credentials()
    moment = getattr(credentials, "_expiry_time", None)
    return S3Keys(frozen.access_key, frozen.secret_key, frozen.token or None, moment.timestamp() if moment else None)


@contextmanager
def _answering() -> Iterator[None]:
    """Raise Unreachable where botocore's error means that a service did not answer, or failed: another try may help.

    An agent on the node can start later than the pod. A refusal stays as it is.
    """
    from botocore import exceptions

    try:
        yield
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.CredentialRetrievalError,
        exceptions.ClientError,
    ) as error:
        if _refused(error):
            raise
        raise Unreachable(
            f"the service that gives credentials of S3 does not answer ({type(error).__name__}); check the network, the proxy "
            "and the agent of the node"
        ) from None


def _refused(error: Any) -> bool:
    """Whether a service answered with a status of 400 to 499. For the agent, botocore has the status in its text only."""
    if isinstance(response := getattr(error, "response", None), Mapping):
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)) < 500
    return re.search(r"non 200 response \(?4\d\d", str(error)) is not None


class _Settings:
    """Region and endpoint: from variables, else from the profile."""

    def __init__(self, environ: Mapping[str, str], session: Any) -> None:
        profile: Mapping[str, Any] = session.get_scoped_config() if session is not None else {}
        variables = (environ.get(name, "").strip() for name in ("AWS_REGION", "AWS_DEFAULT_REGION"))
        self.region = next(filter(None, variables), None) or profile.get("region")
        ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
        names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        given = next(filter(None, (environ.get(name, "").strip() for name in names)), None)
        self.endpoint = None if ignored else given or _endpoint_of(profile, session)


def _endpoint_of(profile: Mapping[str, Any], session: Any) -> str | None:
    if session is None:
        return None
    services = session.full_config.get("services", {}).get(profile.get("services", ""), {})
    endpoint = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url")
    return str(endpoint) if endpoint else None


def _session(environ: Mapping[str, str]) -> Any:
    """botocore's session; None without botocore if nothing says that it is needed. Raises ConfigurationError."""
    try:
        module = importlib.import_module("botocore.session")
    except ImportError as error:
        home = environ.get("HOME", "")
        if any(environ.get(name) for name in _HINTS) or (home and os.path.isdir(os.path.join(home, ".aws"))):
            raise ConfigurationError(
                "credentials of S3 that are not in the environment need botocore; run pip install 'weightlift[s3]'"
            ) from error
        return None
    session = module.get_session()
    for name, value in _METADATA_TRIES.items():
        session.set_config_variable(name, value)
    if region := environ.get("AWS_REGION", "").strip():
        session.set_config_variable("region", region)  # botocore knows AWS_DEFAULT_REGION only, and STS needs a region
    return session
