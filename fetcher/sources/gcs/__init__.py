"""The source for `gs://`: Google Cloud Storage by its JSON interface. `google-auth` gives credentials, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.artifact import ArtifactRef
from fetcher.sources.gcs.access import GcsAccess, tokens_for
from fetcher.sources.gcs.address import endpoint, parsed
from fetcher.sources.gcs.bucket import GcsBucket
from fetcher.sources.objects import ObjectSource
from fetcher.transport.client import HttpTransport


def open_gcs(
    ref: ArtifactRef, transport: HttpTransport, environ: Mapping[str, str], *, access: GcsAccess | None = None
) -> ObjectSource:
    """The source that a `gs://` address names. Raises UsageError, ConfigurationError. Sends no request."""
    address = parsed(ref)
    place = endpoint(environ)
    bucket = GcsBucket(
        address.bucket,
        transport,
        endpoint=place.url,
        tokens=tokens_for(access, environ, emulated=place.emulated),
        payer=access.payer if access is not None else environ.get("GOOGLE_CLOUD_QUOTA_PROJECT"),
    )
    return ObjectSource(bucket, address.path, version=address.generation)
