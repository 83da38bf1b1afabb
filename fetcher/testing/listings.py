"""Effects on the Hub's listings: hostile entries and hostile links to the next page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from fetcher.testing.content import body_of
from fetcher.testing.exchange import Request, Response
from fetcher.testing.faults import Effect


class ListingEffect(Effect):
    """An effect on pages of a listing only."""

    def applies(self, request: Request, response: Response) -> bool:
        return request.origin == "hub" and "/tree/" in request.path and response.status == 200


@dataclass(frozen=True, slots=True)
class ExtraEntries(ListingEffect):
    """Append `entries`, raw JSON objects, to the page."""

    entries: tuple[Mapping[str, object], ...]

    def alter(self, request: Request, response: Response) -> Response:
        page = [*json.loads(response.body.read()), *self.entries]
        return replace(response, body=body_of(json.dumps(page).encode()))


def extra_files(*paths: str, size: int = 3, oid: str = "0" * 40) -> ExtraEntries:
    """Append plain files with these paths, which can be hostile."""
    return ExtraEntries(tuple({"type": "file", "path": path, "size": size, "oid": oid} for path in paths))


@dataclass(frozen=True, slots=True)
class NextLink(ListingEffect):
    """Link to `address` as the next page."""

    address: str

    def alter(self, request: Request, response: Response) -> Response:
        return response.with_header("Link", f'<{self.address}>; rel="next"')


@dataclass(frozen=True, slots=True)
class EndlessPages(ListingEffect):
    """List `entries` new files on every page and link to a next page."""

    entries: int = 1000

    def alter(self, request: Request, response: Response) -> Response:
        number = int(request.query.get("endless", "0")) + 1
        page = extra_files(*(f"endless/{number}/{index}" for index in range(self.entries))).entries
        query = urlencode({**request.query, "endless": number})
        own = f"{request.scheme}://{request.headers['host']}{request.target.partition('?')[0]}"
        endless = replace(response, body=body_of(json.dumps(page).encode()))
        return NextLink(f"{own}?{query}").alter(request, endless)
