"""The variables by which KServe says how S3 is reached, as one credential value.

Source: kserve-storage 0.21. The storage Secret wins over the variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fetcher.dropins.kserve_secret import in_variables, secret_of
from fetcher.sources.s3 import S3Access, found_access

_VARIABLES = {
    "endpoint_url": "AWS_ENDPOINT_URL", "access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "region": "AWS_DEFAULT_REGION", "ca_bundle": "AWS_CA_BUNDLE", "verify_ssl": "S3_VERIFY_SSL",
    "anonymous": "awsAnonymousCredential",
}  # fmt: skip
_ACCELERATED = "https://s3-accelerate.amazonaws.com"


def variables_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` with what the storage Secret sets for S3. Raises ConfigurationError, which shows no value."""
    return {**environ, **in_variables(secret_of(environ, "s3"), _VARIABLES)}


def s3_access(environ: Mapping[str, str]) -> S3Access:
    """Return the access to S3 that `environ` gives. May block while credentials are found. Raises ConfigurationError."""
    variables = variables_of(environ)
    access = found_access(variables)
    if _is_on(variables, "S3_USE_ACCELERATE"):
        access = replace(access, endpoint=_ACCELERATED, virtual_hosts=True)
    if _is_on(variables, "S3_USER_VIRTUAL_BUCKET"):
        access = replace(access, virtual_hosts=True)
    if _is_on(variables, "awsAnonymousCredential"):
        access = replace(access, keys=None, renew=None)
    return access


def is_unverified(environ: Mapping[str, str]) -> bool:
    """Whether the user asks not to verify certificates."""
    return variables_of(environ).get("S3_VERIFY_SSL", "").strip().lower() in ("0", "false")


def _is_on(variables: Mapping[str, str], name: str) -> bool:
    return variables.get(name, "").strip().lower() in ("1", "true")
