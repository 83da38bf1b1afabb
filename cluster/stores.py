"""What a source is, and by which keys a Secret has its credential. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.errors import UsageError
from fetcher.sources.addresses import is_blob_address, scheme_of

KEYS: Mapping[str, tuple[str, ...]] = {
    "hf": ("HF_TOKEN",),
    "https": ("token", "username", "password"),
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS_JSON", "GOOGLE_CLOUD_QUOTA_PROJECT"),
    "az": (
        "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
    ),
    "oci": (".dockerconfigjson", "username", "password"),
}  # fmt: skip
"""The keys of a Secret that are read, by what the source is."""


def store_of(uri: str) -> str:
    """Return what a source is, as `KEYS` names it. Raises UsageError."""
    scheme = scheme_of(uri)
    if scheme in ("file", "pvc"):
        raise UsageError(f"{scheme}:// is no source of a cluster; name a store, a registry or a Hub")
    if is_blob_address(uri):
        return "az"
    return "https" if scheme == "http" else scheme
