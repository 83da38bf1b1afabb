"""Faults: a fault has a matcher and an effect, and counts the requests that it hit.

`effects` and `listings` change a response before it is sent. `interruptions` break off, delay or slow down its sending. Several
faults can hit one request, in the order in which they were added. A final effect (a status, a redirect, an interruption) ends
the sequence, so that several final faults hit one request after another.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from fetcher.testing.exchange import OriginName, Request, Response


class Effect:
    """A change of a response. Effects are frozen values. No further fault applies after a `final` effect."""

    final: ClassVar[bool] = False

    def applies(self, request: Request, response: Response) -> bool:
        """Tell whether the effect can change this response. If not, the fault neither fires nor counts the request."""
        return True

    def alter(self, request: Request, response: Response) -> Response:
        return response


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """Applies `effect` to matching requests, from the `nth` (counted from 1) on, at most `times` (None: no limit).

    `every`: 2 hits every second matching request. `path` is a regular expression searched in the decoded path and in each value
    of the query, which names the file in the address of a blob. `ranged` matches only requests with (or without) a Range
    header.
    """

    effect: Effect
    origin: OriginName | None = None
    path: str | None = None
    method: str | None = None
    ranged: bool | None = None
    nth: int = 1
    times: int | None = None
    every: int = 1

    def matches(self, request: Request, response: Response) -> bool:
        text = "\n".join((request.path, *request.query.values()))
        return (
            self.origin in (None, request.origin)
            and self.method in (None, request.method)
            and self.ranged in (None, request.range is not None)
            and (self.path is None or re.search(self.path, text, re.MULTILINE) is not None)
            and self.effect.applies(request, response)
        )


class Faults:
    """The active faults. Any thread can change them, also during requests."""

    def __init__(self) -> None:
        self._faults: tuple[Fault, ...] = ()
        self._matched: Counter[Fault] = Counter()
        self._fired: Counter[Fault] = Counter()

    def add(self, fault: Fault) -> Fault:
        self._faults = (*self._faults, fault)
        return fault

    def remove(self, fault: Fault) -> None:
        self._faults = tuple(other for other in self._faults if other is not fault)

    def clear(self) -> None:
        """Remove all faults. The counts stay."""
        self._faults = ()

    def fired(self, fault: Fault) -> int:
        """Return the number of requests that `fault` has hit."""
        return self._fired[fault]

    def apply(self, request: Request, response: Response) -> tuple[Response, tuple[Effect, ...]]:
        """Return the changed response and the effects that fired."""
        effects: list[Effect] = []
        for fault in self._faults:
            if fault.matches(request, response) and self._due(fault):
                response = fault.effect.alter(request, response)
                effects.append(fault.effect)
                if fault.effect.final:
                    break
        return response, tuple(effects)

    def _due(self, fault: Fault) -> bool:
        self._matched[fault] += 1
        beyond = self._matched[fault] - fault.nth
        due = beyond >= 0 and beyond % fault.every == 0 and (fault.times is None or self._fired[fault] < fault.times)
        self._fired[fault] += due
        return due
