"""What is compared: temperatures, contenders, and what fio is measured beside."""

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

ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Scenario:
    """`limit`: fio reads the same files before and after each run, and a round where the two disagree does not count; with
    several contenders it takes part once a round instead. `rounds`: unless told otherwise."""

    name: str
    title: str
    contenders: tuple[str, ...]
    temperature: Literal["cold", "warm"]
    limit: bool = False
    rounds: int = ROUNDS


SCENARIOS = (
    Scenario("limit", "cold, to tensors, between two readings by fio", (LOADER,), "cold", limit=True, rounds=7),
    Scenario("cold", "cold, to tensors", (LOADER, STREAMED, ONE_FILE, *PEERS), "cold"),
    Scenario("warm", "warm, to tensors", (BUFFERED, LOADER, *COPYING, LOAD_FILE), "warm"),
    Scenario("first", "warm, one file, to the first tensor", (FIRST, SAFE_OPEN_FIRST), "warm", rounds=7),
    Scenario("pages", "cold, into the page cache", (WARM, CAT, VMTOUCH), "cold", limit=True),
    Scenario("copy", "warm, copied to tmpfs", (COPY, CP), "warm"),
)
