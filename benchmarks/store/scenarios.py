"""The scenarios, and the ratios that the fetcher must reach."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.measuring import Cost
from benchmarks.publishing import MiB, Shape
from benchmarks.ratios import Row, anonymous, fastest_of, longer, of, scaled
from benchmarks.store.contenders import BARE_LOOP, CONTENDERS, CRC32C, CRC64NVME, FETCHER, PEERS


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. `real`: SeaweedFS instead of nginx."""

    name: str
    title: str
    shape: Shape
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    real: bool = False
    on_disk: bool = False

    def scaled(self, scale: float) -> Scenario:
        return replace(self, shape=Shape(self.shape.files, max(1, int(self.shape.size * scale))))


FOUR, SIXTEEN = Shape(4, 512 * MiB), Shape(16, 128 * MiB)
"""2 GiB: of 512 MiB a third of the fetcher's time is its start, which is a row of `python -m benchmarks fetch start`."""
OURS = (FETCHER, CRC64NVME)
SCENARIOS = (
    Scenario("nginx-4", "4 objects from nginx", FOUR),
    Scenario("seaweed-4", "4 objects from SeaweedFS", FOUR, real=True),
    Scenario("nginx-16", "16 objects from nginx", SIXTEEN),
    Scenario("seaweed-16", "16 objects from SeaweedFS", SIXTEEN, real=True),
    Scenario("growth-1", "1 GiB from nginx, to disk", Shape(4, 256 * MiB), OURS, on_disk=True),
    Scenario("growth-4", "4 GiB from nginx, to disk", Shape(4, 1024 * MiB), OURS, on_disk=True),
)  # fmt: skip
"""Scenarios of one shape are adjacent, so that the served files are written once."""

NOT_SLOWER = 1.05
"""The ratio of a fetch to itself on a noisy machine."""


def allowed(_: Cost) -> float:
    """Return the memory limit in bytes: the default `--memory-limit`, and 64 MiB for interpreter and TLS."""
    return float((256 + 64) * MiB)


def _speed(scenario: str, contender: str) -> Row:
    bound = longer(scaled(fastest_of(scenario, PEERS), 1 / 1.3), scaled(of(scenario, BARE_LOOP), 1 / 0.85))
    against = "1.3 times the fastest peer or 0.85 of the bare loop, whichever is easier"
    return Row(f"{scenario}, {contender}", against, bound, of(scenario, contender), floor=1)


def _verified(scenario: str, contender: str) -> Row:
    return Row(
        f"{scenario}, {contender}", "without a checksum", of(scenario, contender), of(scenario, FETCHER), ceiling=NOT_SLOWER
    )


ROWS = (
    _speed("nginx-4", FETCHER),
    _speed("nginx-16", FETCHER),
    _speed("seaweed-4", CRC64NVME),
    _speed("seaweed-16", CRC64NVME),
    *(_verified(scenario, name) for scenario in ("nginx-4", "nginx-16") for name in (CRC64NVME, CRC32C)),
    Row("peak anonymous memory, 4 GiB", "`--memory-limit` + 64 MiB",
        of("growth-4", CRC64NVME, anonymous), of("growth-4", CRC64NVME, allowed), ceiling=1),
    Row("peak anonymous memory, 4 GiB", "the same at 1 GiB",
        of("growth-4", CRC64NVME, anonymous), of("growth-1", CRC64NVME, anonymous), ceiling=1.1),
)  # fmt: skip
