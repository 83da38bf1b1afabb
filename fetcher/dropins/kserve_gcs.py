"""The variables by which KServe says how Google Cloud Storage is reached, as one credential value.

KServe mounts the file of a service account and names it in GOOGLE_APPLICATION_CREDENTIALS. STORAGE_EMULATOR_HOST replaces the
service, as in Google's own client.
"""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.dropins.kserve_secret import secret_of
from fetcher.sources.gcs.access import GcsAccess
from fetcher.sources.gcs.address import endpoint
from fetcher.sources.gcs.files import credentials_in, credentials_of

_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - the address of Google's identity service
_OF_THE_ACCOUNT = ("private_key", "client_email", "token_uri")


def gcs_access(environ: Mapping[str, str]) -> GcsAccess | None:
    """Return the access that the Secret or the mounted file gives; None for that of the pod, such as Workload Identity.

    An emulator gets no credentials. Raises ConfigurationError, which shows no value.
    """
    payer = environ.get("GOOGLE_CLOUD_QUOTA_PROJECT", "").strip() or None
    if endpoint(environ).emulated:
        return GcsAccess(payer=payer, given_by="nowhere")
    secret = secret_of(environ, "gcs", "gs")
    if "private_key" in secret and "client_email" in secret:
        account = {key: secret[key] for key in _OF_THE_ACCOUNT if key in secret}
        found = credentials_of({"type": "service_account", "token_uri": _TOKEN_URI, **account}, "STORAGE_CONFIG")
        return GcsAccess(credentials=found, payer=payer, given_by="STORAGE_CONFIG")
    if path := environ.get("GOOGLE_APPLICATION_CREDENTIALS", "").strip():
        found = credentials_in(path, "GOOGLE_APPLICATION_CREDENTIALS")
        return GcsAccess(credentials=found, payer=payer, given_by="GOOGLE_APPLICATION_CREDENTIALS")
    return None
