"""The scenarios: temperatures, contenders, and how fio takes part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.loading.contenders import (
    BUFFERED,
    CAT,
    COPY,
    COPYING,
    CP,
    FIRST,
    LOAD_FILE,
    LOADER,
    ONE_FILE,
    PEERS,
    SAFE_OPEN_FIRST,
    STREAMED,
    VMTOUCH,
    WARM,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. `fio`: "among" makes it one of the contenders; "around" reads the same files before and after each run.

    With "around", a round in which the two reads disagree is discarded. `rounds` overrides the number of rounds.
    """

    name: str
    title: str
    contenders: tuple[str, ...]
    temperature: Literal["cold", "warm"]
    fio: Literal["among", "around"] | None = None
    rounds: int | None = None


SCENARIOS = (
    Scenario("limit", "cold, to tensors, between two reads by fio", (LOADER,), "cold", fio="around", rounds=7),
    Scenario("cold", "cold, to tensors", (LOADER, STREAMED, ONE_FILE, *PEERS), "cold"),
    Scenario("warm", "warm, to tensors", (BUFFERED, LOADER, *COPYING, LOAD_FILE), "warm"),
    Scenario("first", "warm, one file, to the first tensor", (FIRST, SAFE_OPEN_FIRST), "warm"),
    Scenario("pages", "cold, into the page cache", (WARM, CAT, VMTOUCH), "cold", fio="among"),
    Scenario("copy", "warm, copied to tmpfs", (COPY, CP), "warm"),
)
