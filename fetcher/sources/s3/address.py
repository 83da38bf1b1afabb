"""Reads `s3://` URIs. Pure."""

from __future__ import annotations

import re

from fetcher.errors import UsageError
from fetcher.sources.locations import refuse_signed
from fetcher.values import dataclass

_URI = re.compile(r"(?i:s3)://([^/?#]*)(?:/(.*?))?(?:\?versionId=([^&?#\s]+))?", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
"""AWS allows 63 lower-case letters, digits, dots and hyphens; older buckets and other stores also capitals and underscores."""


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket, and in it one key or all keys below a prefix. Keys are not decoded: `%` is a character of theirs."""

    bucket: str
    path: str
    version: str | None = None

    @classmethod
    def parse(cls, uri: str, revision: str | None) -> S3Address:
        """Parse `s3://bucket/path?versionId=...`; `revision` is a version too. Raises UsageError."""
        refuse_signed(uri)
        match = _URI.fullmatch(uri)
        bucket = match[1] if match is not None else ""
        if bucket.startswith("arn:") or uri.lower().startswith("s3://arn:"):
            raise UsageError("access points are not supported; give the bucket by its name")
        if re.search(r"-{2}x-s3$", bucket):
            raise UsageError(f"{bucket} is a bucket of S3 Express, which is not supported; copy it to a common one")
        if match is None or not _BUCKET.fullmatch(bucket):
            raise UsageError("not a bucket; write s3://bucket/path")
        if match[3] and revision and match[3] != revision:
            raise UsageError(f"the URI says version {match[3]} and --revision says {revision}; give one of them")
        return cls(bucket, match[2] or "", match[3] or revision)


def named_version(version: str | None) -> str | None:
    """The version to ask for. A bucket without versions calls its only one `null`."""
    return None if version == "null" else version
