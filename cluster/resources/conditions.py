"""Conditions as Kubernetes has them, and the rule that keeps the time of the last change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from cluster.resources.schema import Schema

Status = Literal["True", "False", "Unknown"]

LONGEST = 1024
"""Characters of a message. Kubernetes allows 32,768; people read a sentence."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One aspect of an object's state. `reason` is a word for programs, `message` a sentence for people."""

    type: Annotated[str, Schema(most=316)]
    status: Status
    reason: Annotated[str, Schema(pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", least=1, most=1024)]
    message: Annotated[str, Schema(most=32768)] = ""
    observed_generation: int = 0
    last_transition_time: Annotated[str, Schema(form="date-time")] = ""


def merged(before: Iterable[Condition], now: Iterable[Condition], *, moment: str) -> tuple[Condition, ...]:
    """Return the conditions `now`, with the time of the last change of each status. `moment` is in the form of RFC 3339."""
    known = {each.type: each for each in before}
    return tuple(
        replace(
            each,
            message=each.message[:LONGEST],
            last_transition_time=known[each.type].last_transition_time
            if each.type in known and known[each.type].status == each.status
            else moment,
        )
        for each in now
    )


def status_of(conditions: Iterable[Condition], kind: str) -> Status:
    """Return the status of one condition; Unknown without it."""
    return next((each.status for each in conditions if each.type == kind), "Unknown")
