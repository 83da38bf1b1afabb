"""Repeatable random events: their number and their seed.

WEIGHTLIFT_CHAOS_ROUNDS sets the number of rounds, e.g. for a nightly run. WEIGHTLIFT_CHAOS_SEED repeats a failed run.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chaos:
    """Random choices: the same seed gives the same choices."""

    seed: int
    random: random.Random
    wanted_rounds: int | None

    def rounds(self, *, ordinarily: int) -> range:
        """Return the number of rounds from the environment, else `ordinarily`, as a range."""
        return range(ordinarily if self.wanted_rounds is None else self.wanted_rounds)


def chaos_from(environ: Mapping[str, str] = os.environ) -> Chaos:
    seed = int(environ.get("WEIGHTLIFT_CHAOS_SEED") or secrets.randbits(32))
    rounds = environ.get("WEIGHTLIFT_CHAOS_ROUNDS")
    return Chaos(seed, random.Random(seed), int(rounds) if rounds else None)
