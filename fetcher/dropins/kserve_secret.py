"""KServe's storage Secret: one JSON object with the credentials of one store, given in variables. Pure.

The type of an object says which store it is for. kserve-storage 0.21 reads those of S3. ModelMesh shares the Secret, and also
reads those of Google Cloud Storage (`gcs`) and Azure (`azure`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fetcher.errors import ConfigurationError

_VARIABLES = ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG")
_UNTYPED = "s3"
"""The type of an object that names none."""


def secret_of(environ: Mapping[str, str], *types: str) -> dict[str, str]:
    """Return what the Secret sets if it is of one of `types`, otherwise nothing. The override wins for each key.

    Raises ConfigurationError, which shows no value.
    """
    settings: dict[str, Any] = {}
    for name in _VARIABLES:
        settings |= _document(name, environ.get(name, ""))
    if settings.get("type", _UNTYPED) not in types:
        return {}
    return {key: str(value) for key, value in settings.items() if value not in (None, "")}


def in_variables(secret: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Return the values of `secret` by the variables that `names` has for its keys."""
    return {variable: secret[key] for key, variable in names.items() if key in secret}


def _document(name: str, text: str) -> Mapping[str, Any]:
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{name} is not a JSON object; correct the key of KServe's storage Secret")
    return document
