"""KServe's Secrets by the keys that a ModelCache's Secret has: a closed list, everything else in them is left out. Pure.

An entry of the storage Secret is a JSON object with the credential of one store. The Secrets of a service account have the
names of variables, and annotations that say where S3 is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fetcher.errors import ConfigurationError

STORAGE_SECRET = "storage-config"  # noqa: S105 - the name of a Secret
"""KServe's name of the Secret with the credentials of stores, in each namespace."""

_OF_ENTRY: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY", "region": "AWS_REGION",
        "endpoint_url": "AWS_ENDPOINT_URL",
    },
    "azure": {
        "account_name": "AZURE_STORAGE_ACCOUNT", "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
        "tenant_id": "AZURE_TENANT_ID", "client_id": "AZURE_CLIENT_ID", "client_secret": "AZURE_CLIENT_SECRET",
    },
    "hf": {"token": "HF_TOKEN", "HF_TOKEN": "HF_TOKEN"},
}  # fmt: skip
_OF_ACCOUNT = {
    **{name: name for name in ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")},
    "awsAccessKeyID": "AWS_ACCESS_KEY_ID",
    "awsSecretAccessKey": "AWS_SECRET_ACCESS_KEY",
    "gcloud-application-credentials.json": "GOOGLE_APPLICATION_CREDENTIALS_JSON",
    "AZURE_STORAGE_ACCESS_KEY": "AZURE_STORAGE_KEY",
    **{f"AZ_{name}": f"AZURE_{name}" for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")},
    **{f"AZURE_{name}": f"AZURE_{name}" for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")},
    ".dockerconfigjson": ".dockerconfigjson",
}
_ENDPOINT, _HTTPS, _REGION = (f"serving.kserve.io/s3-{name}" for name in ("endpoint", "usehttps", "region"))


def of_entry(data: Mapping[str, bytes], key: str, parameters: Mapping[str, str], where: str) -> dict[str, bytes]:
    """Return the credential in the entry `key` of a storage Secret; `parameters` replace single values of it.

    Raises ConfigurationError, which shows no value.
    """
    if key not in data:
        raise ConfigurationError(f"{where} has no key {key}; add it, or correct the storage key of the cache")
    try:
        document = json.loads(data[key])
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigurationError(f"key {key} of {where} is no JSON object; write it again")
    settings: dict[str, Any] = {**document, **parameters}
    kind = str(settings.get("type", "s3"))
    if kind in ("gcs", "gs"):
        return {"GOOGLE_APPLICATION_CREDENTIALS_JSON": json.dumps({"type": "service_account", **_texts(settings)}).encode()}
    names = _OF_ENTRY.get(kind)
    if names is None:
        raise ConfigurationError(f"key {key} of {where} is of type {kind}; use one of {', '.join((*_OF_ENTRY, 'gcs'))}")
    return {names[name]: value.encode() for name, value in _texts(settings).items() if name in names}


def of_account(data: Mapping[str, bytes], annotations: Mapping[str, str]) -> dict[str, bytes]:
    """Return what a Secret of a service account says about stores."""
    found = {_OF_ACCOUNT[name]: value for name, value in data.items() if name in _OF_ACCOUNT}
    if endpoint := annotations.get(_ENDPOINT):
        scheme = "http" if annotations.get(_HTTPS) == "0" else "https"
        found["AWS_ENDPOINT_URL"] = (endpoint if "://" in endpoint else f"{scheme}://{endpoint}").encode()
    if region := annotations.get(_REGION):
        found["AWS_REGION"] = region.encode()
    return found


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in settings.items() if isinstance(value, str) and value and name != "type"}
