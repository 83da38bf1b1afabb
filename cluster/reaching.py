"""Where the connections of a source may lead, whatever it resolves and redirects to: see `fetcher.reach`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from cluster.allowing import PORTS
from fetcher.reach import Reach
from fetcher.sources.access import Access
from fetcher.sources.addresses import hub_endpoint, is_blob_address, scheme_of
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.s3.access import S3Access

_STORES = ("s3", "gs", "az")


def reach_of(
    uri: str, access: Access, allowed: Iterable[str], environ: Mapping[str, str], *, allow_loopback: bool = False
) -> Reach:
    """Return where connections for `uri` may lead: to private addresses of hosts that a prefix of `allowed` names, of the Hub's
    endpoint in `environ`, and of stores that nobody chose by their hosts. Raises ConfigurationError, UnsupportedScheme."""
    places = (_place(each) for each in (*allowed, hub_endpoint(environ)))
    named = frozenset(place for place in places if place is not None)
    return Reach(named, store=scheme_of(uri) in _STORES and not _chosen(access), loopback=allow_loopback)


def _chosen(access: Access) -> bool:
    """Whether a Secret names the address of the store. It is below a prefix then, which may be one of all hosts."""
    endpoint = access.endpoint if isinstance(access, S3Access | AzureAccess) else None
    return endpoint is not None and not is_blob_address(f"{endpoint}/")


def _place(prefix: str) -> tuple[str, int] | None:
    """The host and port that a prefix names; None if it is one of all hosts, or of names in a store."""
    scheme, _, rest = prefix.partition("://")
    parts = urlsplit(f"//{rest}")
    if scheme not in PORTS or not parts.hostname:
        return None
    return parts.hostname.rstrip("."), parts.port or PORTS[scheme]
