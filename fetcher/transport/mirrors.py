"""Where a mirror's answers lead: mirrors pass on addresses that name their upstream, or forget the path they lie under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fetcher.errors import BadResponse
from fetcher.transport.urls import address_from, origin_of, same_path

_NAME = r"[^/]+"
_OF_THE_HUB = re.compile(rf"/api/(models|datasets|resolve-cache)/.+|/(datasets/)?{_NAME}(/{_NAME})?/resolve/.+")


@dataclass(frozen=True, slots=True)
class Mirror:
    """The Hub at `endpoint`, for the one at `upstream`: addresses in their normal spelling, without a slash at the end."""

    endpoint: str
    upstream: str

    def onward(self, url: str, reference: str) -> str:
        """The address that a Location in an answer from `url` means. Raises BadResponse.

        The Hub's own addresses are continued at the mirror, and below its path. One that leads back to `url` is taken as it
        is: then the mirror really sends its clients elsewhere.
        """
        target = address_from(url, reference)
        parts, base = urlsplit(target), urlsplit(self.endpoint)
        if not (self._upstream(parts) or self._beside(parts)):
            return target
        path = parts.path if _below(parts.path, base.path) else base.path + parts.path
        here = urlunsplit((base.scheme, base.netloc, path, parts.query, ""))
        return target if here == url else here

    def next_page(self, url: str, reference: str) -> str:
        """The address of the page after `url` of the same listing: only the query may differ. Raises BadResponse.

        It is asked for where `url` was, whatever host the mirror's upstream gave to it.
        """
        target, page = urlsplit(address_from(url, reference)), urlsplit(url)
        within = page.path.removeprefix(urlsplit(self.endpoint).path)
        if not (same_path(target.path, page.path) or same_path(target.path, within)):
            raise BadResponse("the Hub's listing goes on at an address that is not of this listing; it is not followed there")
        return urlunsplit((page.scheme, page.netloc, page.path, target.query, ""))

    def _upstream(self, parts: SplitResult) -> bool:
        upstream = urlsplit(self.upstream).hostname
        return parts.hostname == upstream != urlsplit(self.endpoint).hostname

    def _beside(self, parts: SplitResult) -> bool:
        """At the mirror's own host and the Hub's by its path; also by plain HTTP, where a proxy before the mirror ends TLS."""
        base = urlsplit(self.endpoint)
        same = origin_of(urlunsplit(parts)) == origin_of(self.endpoint)
        twin = parts.scheme == "http" and parts.hostname == base.hostname and parts.port in (None, 80, base.port)
        own = _OF_THE_HUB.fullmatch(parts.path) or (base.path and _below(parts.path, base.path))
        return (same or twin) and bool(own)


def _below(path: str, prefix: str) -> bool:
    return path.startswith(f"{prefix}/")
