"""A link in simulated time, used by the real schedule and the real controller."""

from __future__ import annotations

from dataclasses import dataclass, field

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.engine.concurrency import Concurrency
from fetcher.engine.schedule import Assignment, Progress, Schedule
from fetcher.planning.ranges import LONGEST_RANGE

STEP = 0.01
"""Seconds."""


@dataclass(slots=True)
class Link:
    """`rate` bytes a second for all connections, at most `cap` for each. `rate_later`: a time, and the rate from then on. The
    first byte of a request takes `latency`, plus the time in the queue of an overloaded link. Connections above `allowed` are
    answered 429."""

    rate: float
    cap: float
    latency: float
    allowed: int = 10_000
    queue: bool = False
    rate_later: tuple[float, float] | None = None

    def rate_at(self, now: float) -> float:
        return self.rate_later[1] if self.rate_later and now >= self.rate_later[0] else self.rate

    def latency_with(self, active: int) -> float:
        crowd = max(1.0, active * self.cap / self.rate) if self.queue else 1.0
        return self.latency * crowd


@dataclass(slots=True)
class Connection:
    assignment: Assignment
    asked: float
    answered: float
    position: float
    refused: bool = False


@dataclass(slots=True)
class Simulation:
    """A transfer of files of the given sizes; `run` returns how many seconds it took."""

    link: Link
    sizes: list[int]
    most: int = 64
    now: float = 0.0
    refusals: int = 0
    levels: list[tuple[float, int]] = field(default_factory=list)

    def run(self) -> float:
        schedule, control = Schedule(), Concurrency(self.most, clock=lambda: self.now)
        for number, size in enumerate(self.sizes):
            schedule.add(f"{number:06d}", [ByteRange(0, size)], size=size)
        missing, active, pauses = float(sum(self.sizes)), list[Connection](), list[float]()
        while missing >= 1 or active:
            pauses = [until for until in pauses if until > self.now]
            while len(active) + len(pauses) < control.connections:
                longest = control.range_length(int(missing), shortest=CHUNK_SIZE, longest=LONGEST_RANGE)
                assignment = schedule.assign(longest=longest) or schedule.steal(self.progress(active))
                if assignment is None:
                    break
                refused = len(active) >= self.link.allowed
                answered = self.now + self.link.latency_with(len(active) + 1)
                active.append(Connection(assignment, self.now, answered, assignment.start, refused))
            self.now += STEP
            missing -= self.transmit(active, control)
            for each in [each for each in active if self.ended(each)]:
                active.remove(each)
                schedule.finish(each.assignment)
                if each.refused:
                    self.refusals += 1
                    control.refused()
                    pauses.append(self.now + 1.0)
                    back = ByteRange(each.assignment.start, each.assignment.stop or 0)
                    schedule.add(each.assignment.path, [back], size=len(back))
            self.levels.append((self.now, control.connections))
        return self.now

    def transmit(self, active: list[Connection], control: Concurrency) -> float:
        sending = [each for each in active if each.answered <= self.now and not each.refused]
        share = min(self.link.cap, self.link.rate_at(self.now) / max(1, len(sending))) * STEP
        total = 0.0
        for each in sending:
            if each.position == each.assignment.start:
                control.answered(each.answered - each.asked)
            before, each.position = each.position, min(each.position + share, float(each.assignment.stop or 0))
            total += each.position - before
        control.received(int(total))
        return total

    def ended(self, each: Connection) -> bool:
        return (each.refused and each.answered <= self.now) or each.position >= (each.assignment.stop or 0)

    def progress(self, active: list[Connection]) -> list[Progress]:
        return [
            Progress(each.assignment, int(each.position), (each.position - each.assignment.start) / (self.now - each.asked))
            for each in active
            if each.position > each.assignment.start
        ]

    def level_in(self, start: float, stop: float) -> list[int]:
        """Return the numbers of connections that were allowed in a part of the run (0 to 1)."""
        end = self.levels[-1][0]
        return [level for at, level in self.levels if start * end <= at <= stop * end]
