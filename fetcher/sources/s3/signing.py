"""Signature Version 4 in header fields (AWS General Reference, "Create a signed AWS API request"). Pure.

`Range` and `If-Match` are not signed, so the fields of one object serve all its ranges. Checked against botocore's
`S3SigV4Auth` and on a server that enforces signatures.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

from fetcher.sources.s3.access import S3Keys

_EMPTY = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_headers(
    method: str, url: str, keys: S3Keys, *, region: str, now: float, headers: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return `headers` and those that authorize a request without a body. `now` is Unix time by the server's clock."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    fields = {**(headers or {}), "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if keys.token is not None:
        fields["x-amz-security-token"] = keys.token
    parts = urlsplit(url)
    # The port that a scheme has anyway is not sent.
    host = parts.netloc.removesuffix({"https": ":443", "http": ":80"}.get(parts.scheme, ""))
    signed = {"host": host, **{name.lower(): " ".join(value.split()) for name, value in fields.items()}}
    names = ";".join(sorted(signed))
    lines = [f"{name}:{signed[name]}" for name in sorted(signed)]
    request = "\n".join([method, parts.path or "/", _query(parts.query), *lines, "", names, _EMPTY])
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    fields["Authorization"] = f"{_ALGORITHM} Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return fields


def _query(query: str) -> str:
    """The query with its pairs in order, each in the spelling that is signed."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))
