"""What a fetch does if its source serves other content than it listed. Pure.

Listing again cures a change. A source that changes each time gets no further fetch now, but may be stable later. A source that
lists the same again, and still serves other content, contradicts itself, and no later fetch helps.
"""

from __future__ import annotations

from dataclasses import dataclass

from fetcher.artifact import Listing
from fetcher.errors import ContentChanged, KeepsChanging

AGAIN = 3
"""Times an artifact is listed again. An upload replaces each file once; four changes within one fetch are not one upload."""


@dataclass(slots=True)
class Changes:
    """Counts the changes of one source during one fetch. Call `listed` for each listing, and `met` for each change."""

    _met: int = 0
    _before: Listing | None = None
    _now: Listing | None = None

    @property
    def last(self) -> bool:
        """Whether no further change is accepted: files without a digest are fetched in one piece then."""
        return self._met == AGAIN

    def listed(self, listing: Listing) -> None:
        """Record what the source lists now."""
        self._now = listing

    def met(self, error: ContentChanged) -> str:
        """Return the words about what is done now. Raises `error` or KeepsChanging if nothing is left to do."""
        if self.last:
            if self._now is not None and self._now == self._before:
                raise error
            raise KeepsChanging(
                f"{error.message}; the source changed again after each of {AGAIN} new listings; run the command again when "
                "nobody writes there",
                path=error.path,
            ) from error
        self._met += 1
        self._before, self._now = self._now, None
        return f"{error.message}; asking the source again" + (", now for each file without a digest in one piece" * self.last)
