"""Corrects addresses in the answers of an endpoint of the Hub (`HF_ENDPOINT`): some pass on addresses of their upstream or omit
their own base path."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fetcher.errors import BadResponse
from fetcher.transport.urls import address_from, origin_of, same_path
from fetcher.values import dataclass

_NAME = r"[^/]+"
_OF_THE_HUB = rf"/api/(models|datasets|resolve-cache)/.+|/(datasets/)?{_NAME}(/{_NAME})?/resolve/.+"


@dataclass(frozen=True, slots=True)
class HubEndpoint:
    """What stands at `endpoint` for the Hub at `upstream`. Both addresses are in normal spelling, without a trailing slash."""

    endpoint: str
    upstream: str

    def onward(self, url: str, reference: str) -> str:
        """The address to request for a Location in an answer from `url`. Raises BadResponse.

        Addresses of the Hub become addresses of the mirror, below its base path. If the result would be `url` itself, the
        Location is used unchanged: the mirror really redirects its clients elsewhere.
        """
        target = address_from(url, reference)
        parts, base = urlsplit(target), urlsplit(self.endpoint)
        if not (self._is_upstream(parts) or self._is_mirrored(parts)):
            return target
        path = parts.path if _below(parts.path, base.path) else base.path + parts.path
        at_mirror = urlunsplit((base.scheme, base.netloc, path, parts.query, ""))
        return target if at_mirror == url else at_mirror

    def next_page(self, url: str, reference: str) -> str:
        """The address of the page that follows `url` in the same listing. Only the query may differ. Raises BadResponse.

        Its host is that of `url`, whatever host the mirror's upstream named.
        """
        target, page = urlsplit(address_from(url, reference)), urlsplit(url)
        within = page.path.removeprefix(urlsplit(self.endpoint).path)
        if not (same_path(target.path, page.path) or same_path(target.path, within)):
            raise BadResponse("the next page of the Hub's listing is at an address outside this listing; it is not followed")
        return urlunsplit((page.scheme, page.netloc, page.path, target.query, ""))

    def _is_upstream(self, parts: SplitResult) -> bool:
        upstream = urlsplit(self.upstream).hostname
        return parts.hostname == upstream != urlsplit(self.endpoint).hostname

    def _is_mirrored(self, parts: SplitResult) -> bool:
        """Whether the host is the mirror's and the path is the Hub's. Plain HTTP counts too: a proxy may end TLS before the
        mirror."""
        base = urlsplit(self.endpoint)
        hub_path = re.fullmatch(_OF_THE_HUB, parts.path) or (base.path and _below(parts.path, base.path))
        if not hub_path or parts.hostname != base.hostname:
            return False
        same_origin = origin_of(urlunsplit(parts)) == origin_of(self.endpoint)
        plain_http = parts.scheme == "http" and parts.port in (None, 80, base.port)
        return same_origin or plain_http


def _below(path: str, prefix: str) -> bool:
    return path.startswith(f"{prefix}/")
