"""Random events, repeatable: how many, and from which seed.

WEIGHTLIFT_CHAOS_ROUNDS raises the number of rounds from what an ordinary run can afford to what a night can;
WEIGHTLIFT_CHAOS_SEED repeats a run that failed.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chaos:
    """`random` is seeded: the same seed gives the same choices."""

    seed: int
    random: random.Random
    wanted_rounds: int | None

    def rounds(self, *, ordinarily: int) -> range:
        """As many as the environment asks for, else `ordinarily`."""
        return range(ordinarily if self.wanted_rounds is None else self.wanted_rounds)


def chaos_from(environ: Mapping[str, str] = os.environ) -> Chaos:
    seed = int(environ.get("WEIGHTLIFT_CHAOS_SEED") or secrets.randbits(32))
    rounds = environ.get("WEIGHTLIFT_CHAOS_ROUNDS")
    return Chaos(seed, random.Random(seed), int(rounds) if rounds else None)
