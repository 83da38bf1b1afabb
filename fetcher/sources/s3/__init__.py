"""`s3://bucket/prefix`: Amazon S3, and stores that speak its protocol.

Requests are signed here, in header fields: an address then holds no secret, and one signature serves every range of an object.
botocore, an extra, only finds credentials, and is imported only if they are not in the environment.
"""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.artifact import ArtifactRef
from fetcher.sources.objects import ObjectSource
from fetcher.sources.s3.access import S3Access as S3Access
from fetcher.sources.s3.access import S3Keys as S3Keys
from fetcher.sources.s3.address import S3Address
from fetcher.sources.s3.bucket import S3Bucket
from fetcher.sources.s3.finding import found_access as found_access
from fetcher.transport.client import HttpTransport


def open_s3(ref: ArtifactRef, transport: HttpTransport, environ: Mapping[str, str], access: S3Access | None) -> ObjectSource:
    """The source that `ref.uri` names; without `access`, with the credentials of the process. Raises UsageError."""
    address = S3Address.parse(ref.uri, ref.revision)
    bucket = S3Bucket(address.bucket, transport, access=access, find=lambda: found_access(environ))
    return ObjectSource(bucket, address.path, version=address.version)
