"""Files of credentials, as Google's tools write them: google-auth makes credentials of what they hold."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
INSTALL = "pip install 'weightlift[gcs]'"
_KINDS = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
    "external_account": ("google.auth.identity_pool", "from_info"),
    "impersonated_service_account": ("google.auth.impersonated_credentials", "from_impersonated_service_account_info"),
}
"""By the file's type. google-auth's own function for all types is deprecated. It also runs programs that a file names."""
_AWS = ("google.auth.aws", "from_info")


def credentials_in(path: str, given_by: str) -> Any:
    """The credentials in a file. Raises ConfigurationError for a file that cannot be used, or without google-auth."""
    try:
        info = json.loads(Path(path).read_bytes())
        info["type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} (from {given_by}) is no file of credentials ({type(error).__name__}); give one that Google's tools wrote"
        ) from None
    return credentials_of(info, f"{path} (from {given_by})")


def credentials_of(info: Mapping[str, Any], where: str) -> Any:
    """The credentials in `info`, the content of a file; `where` it is, for messages. Raises as `credentials_in`."""
    kind = info["type"]
    found = _AWS if kind == "external_account" and _is_of_aws(info) else _KINDS.get(str(kind))
    if found is None:
        raise ConfigurationError(f"{where} has credentials of another type than {', '.join(_KINDS)}; give one of these")
    try:
        module = importlib.import_module(found[0])
    except ImportError:
        raise ConfigurationError(f"the credentials in {where} need google-auth, which is not installed: {INSTALL}") from None
    try:
        return getattr(module.Credentials, found[1])(info, scopes=[SCOPE])
    except Exception as error:  # noqa: BLE001 - the file decides what google-auth raises, and its text may have a secret
        raise ConfigurationError(
            f"the credentials in {where} cannot be used ({type(error).__name__}); write them again"
        ) from None


def _is_of_aws(info: Any) -> bool:
    source = info.get("credential_source")
    return isinstance(source, dict) and str(source.get("environment_id", "")).startswith("aws")
