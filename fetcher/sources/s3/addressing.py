"""Where the objects of a bucket are, and by which region their requests are signed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote, urlencode

from fetcher.errors import ConfigurationError
from fetcher.sources.s3.access import S3Access
from fetcher.transport.urls import normal

_AMAZON = ("https://s3.amazonaws.com", "http://s3.amazonaws.com")


def at_home(access: S3Access) -> S3Access:
    """The access without an endpoint that is Amazon's own, which knows no regions."""
    amazon = (access.endpoint or "").rstrip("/").lower() in _AMAZON
    return replace(access, endpoint=None) if amazon else access


def same_cloud(region: str, other: str) -> bool:
    """Whether both regions are in one cloud. Amazon's in China is another one, which gets no signature of the rest."""
    return region.startswith("cn-") == other.startswith("cn-")


def address_of(bucket: str, key: str, query: Mapping[str, str | None], access: S3Access, region: str) -> str:
    """The address of an object, or of the bucket if `key` is empty. A query value of None is left out.

    A bucket with a dot in its name is a part of the path: no certificate fits two labels. Raises ConfigurationError.
    """
    path = quote(key, safe="-_.~/")
    words = urlencode({name: value for name, value in query.items() if value is not None}, quote_via=quote, safe="-_.~")
    if access.endpoint is not None:
        base = _at_endpoint(bucket, access.endpoint, virtual=access.virtual_hosts is True)
    else:
        host = f"s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
        virtual = access.virtual_hosts is not False and "." not in bucket
        base = f"https://{bucket}.{host}" if virtual else f"https://{host}/{bucket}"
    return f"{base}/{path}" + (f"?{words}" if words else "")


def _at_endpoint(bucket: str, endpoint: str, *, virtual: bool) -> str:
    try:
        base = normal(endpoint).rstrip("/")
    except ValueError:
        raise ConfigurationError("the endpoint of S3 is not a web address; write it as https://host") from None
    scheme, _, host = base.partition("://")
    return f"{scheme}://{bucket}.{host}" if virtual else f"{base}/{bucket}"
