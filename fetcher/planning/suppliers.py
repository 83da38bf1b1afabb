"""Who brings the next range: a mirror, or the origin. Pure; times are passed in, in seconds.

A mirror is asked first: it is nearer, and spares the origin. Nothing is lost if it does not deliver, but time:

::

    it fails            left alone for a second, after each further failure in a row for twice as long; then one range at first
    it asks to wait     left alone for that time
    it is slow          left alone for a minute, each time twice as long
    it is suspected     left alone until the file in dispute is right; banned for good if it lied

Slow is relative, and while mirrors bring everything nobody knows how fast the origin is. So one connection asks the origin for
a chunk now and then. Rates are those of single connections, with the wait for the answer: they share the link of this node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import field

from fetcher.artifact import ORIGIN
from fetcher.quantities import doubled
from fetcher.values import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 64.0
"""Seconds that a failed mirror is left alone."""
SAMPLE_AFTER = 2.0
"""Seconds of use of mirrors after which the origin is asked for a chunk, and after which a body waits no longer for its end to
make room for that. A fetch that is over by then has lost nothing."""
SAMPLE_AGAIN, RARELY = 30.0, 960.0
"""Seconds to the next sample, twice as long each time: five chunks of the origin in the first quarter of an hour."""
SAMPLE_FOR = 2.0
"""Seconds of a sample, unless its chunk comes earlier. With the two times before a slow mirror costs some six seconds."""
MEASURED = 1.0
"""Connection-seconds of a mirror, without which it is not compared: it has only begun."""
FASTER = 2.0
"""How much faster than a mirror a connection to the origin must be for the mirror to be slow. Single connections that share one
link differ by less; a mirror of half the rate and more still spares the origin."""
MUCH_FASTER = 8.0
"""The same if several mirrors bring bytes: each has others to send to, and together they spare the origin."""
SLOW_PAUSE, LONGEST_SLOW = 60.0, 960.0
"""Seconds that a slow mirror is left alone. To find out that it still is takes some six seconds, so a tenth of the time."""


@dataclass(slots=True)
class Supplier:
    """What is known of a supplier: bytes and connection-seconds since the last comparison, and until when it is left alone."""

    active: int = 0
    received: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    since: float = 0.0
    failures: int = 0
    lagged: bool = False
    """Whether it was slow in the last comparison. Of several mirrors one is left only after two of them."""
    slow: int = 0
    avoided_until: float = float("-inf")
    left: bool = False
    """Whether what it brings now shall end: it is slow or suspected."""
    news: str = ""
    banned: bool = False

    def passed(self, now: float) -> None:
        """Count the time up to `now` for the active bodies."""
        self.seconds += self.active * (now - self.since)
        self.busy += bool(self.active) * (now - self.since)
        self.since = now

    def count_anew(self, now: float) -> None:
        """Count from `now` on."""
        self.passed(now)
        self.received, self.seconds, self.busy = 0, 0.0, 0.0

    @property
    def rate(self) -> float:
        """Bytes a second of one connection."""
        return self.received / self.seconds if self.seconds else 0.0

    @property
    def rate_together(self) -> float:
        """Bytes a second of all its connections."""
        return self.received / self.busy if self.busy else 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is asked for a range, and whether only for the rest of its first chunk."""

    supplier: str
    one_chunk: bool


@dataclass(slots=True)
class Suppliers:
    """The suppliers of one fetch: the origin and the mirrors `names`, without any the origin alone.

    `sampled`: whether the origin may be asked for a chunk only to learn its rate.
    """

    names: tuple[str, ...]
    sampled: bool = True
    _of: dict[str, Supplier] = field(init=False)
    _suspects: dict[str, set[str]] = field(default_factory=dict)
    _sample_at: float | None = None
    _samples: int = 0
    _sampling: float | None = None

    def __post_init__(self) -> None:
        self._of = {name: Supplier() for name in (ORIGIN, *self.names)}

    # What is decided

    def _usable(self, among: Iterable[str], now: float) -> list[str]:
        """The mirrors that may be asked now. One that failed is asked for one range at a time, until it brings one."""
        return [
            name
            for name in among
            if not (each := self._of[name]).banned
            and not any(name in suspects for suspects in self._suspects.values())
            and each.avoided_until <= now
            and not (each.failures and each.active)
        ]

    def choose(self, path: str, now: float, *, among: Iterable[str], begun: bool = False) -> Choice:
        """Return who is asked for a range of `path`: the origin, or one `among` mirrors that may have it.

        `begun`: it continues a chunk of the origin, which brings the rest of it too, unless it fails.
        """
        usable = self._usable(among, now) if path not in self._suspects else []
        origin = self._of[ORIGIN]
        if not usable:
            return Choice(ORIGIN, one_chunk=False)
        if begun and not origin.failures:
            return Choice(ORIGIN, one_chunk=True)
        if self.sampled and self.sample(now):
            return Choice(ORIGIN, one_chunk=True)
        return Choice(min(usable, key=lambda name: self._of[name].active), one_chunk=begun)

    def sample(self, now: float) -> bool:
        """Begin to measure the origin, which is asked for something now, if that is due. Returns whether it is."""
        origin = self._of[ORIGIN]
        if origin.failures or self._sampling is not None or self._sample_at is None or now < self._sample_at:
            return False
        self._sampling = now
        for each in self._of.values():  # what came before shared the link with more or fewer others
            each.count_anew(now)
        return True

    def avoided_until(self, name: str) -> float:
        """Until when a mirror is left alone; a time in the past if it is not."""
        return self._of[name].avoided_until

    def ends(self, name: str, now: float) -> bool:
        """Whether a body of `name` shall end before its time: its supplier is left, or nobody else takes the sample."""
        if name == ORIGIN:
            return False
        overdue = self._sample_at is not None and self._sampling is None and now >= self._sample_at + SAMPLE_AFTER
        if overdue and self.sampled and not self._of[ORIGIN].failures:
            self._sample_at = now  # this connection takes it
            return True
        return self._of[name].left

    def news(self, name: str) -> str:
        """Return why the user should know that a mirror is left; "" if there is no news."""
        supplier = self._of[name]
        said, supplier.news = supplier.news, ""
        return said

    # What is learnt

    def add(self, name: str) -> None:
        """Record that there is one more mirror."""
        if name not in self._of:
            self.names, self._of[name] = (*self.names, name), Supplier()

    def opened(self, name: str, now: float) -> None:
        """Record that `name` is asked for a range."""
        supplier = self._of[name]
        supplier.passed(now)
        supplier.active += 1
        supplier.left = False
        if name != ORIGIN and self._sample_at is None:
            self._sample_at = now + SAMPLE_AFTER

    def came(self, name: str, count: int, now: float) -> None:
        """Record `count` bytes of a body."""
        supplier = self._of[name]
        supplier.received += count
        if name == ORIGIN:
            supplier.failures = 0
        if self._sampling is not None and name == ORIGIN and now - self._sampling >= SAMPLE_FOR:
            self._compare(now)

    def ended(self, name: str, now: float) -> None:
        """Record that a body has ended, however."""
        supplier = self._of[name]
        supplier.passed(now)
        supplier.active -= 1
        if name == ORIGIN and self._sampling is not None and not supplier.active:
            self._compare(now)

    def complete(self, name: str) -> None:
        """Record that a range has come to its end."""
        self._of[name].failures = 0

    def failed(self, name: str, now: float, retry_after: float | None = None) -> bool:
        """Record that `name` did not bring a range. Returns whether that is news: it was not left alone already."""
        supplier = self._of[name]
        if name == ORIGIN:
            supplier.failures += 1
            return True
        if supplier.left or supplier.avoided_until > now:
            return False
        if retry_after is None:
            supplier.failures += 1
            supplier.avoided_until = now + doubled(FIRST_PAUSE, supplier.failures, LONGEST_PAUSE)
        else:
            supplier.avoided_until = now + min(max(retry_after, FIRST_PAUSE), LONGEST_PAUSE)
        return True

    def disputed(self, path: str, suspects: Collection[str]) -> None:
        """Record that `path` is wrong, and that `suspects` may be to blame."""
        self._suspects.setdefault(path, set()).update(suspects)
        for name in set(suspects).intersection(self.names):
            self._of[name].left = True

    def judged(self, path: str, liars: Collection[str]) -> None:
        """Record that `path` is right, and who had sent other bytes. Its other suspects are cleared."""
        for name in set(liars).intersection(self.names):
            self._of[name].banned = self._of[name].left = True
        self._suspects[path] = set()

    def _compare(self, now: float) -> None:
        """End the sample. Leave the mirrors that are slow, and begin to count again."""
        self._sampling, self._sample_at = None, now + doubled(SAMPLE_AGAIN, self._samples + 1, RARELY)
        self._samples += 1
        for each in self._of.values():
            each.passed(now)
        origin = self._of[ORIGIN]
        several = sum(self._of[name].seconds > 0 for name in self.names) > 1
        for mirror in map(self._of.__getitem__, self.names):
            if mirror.seconds < MEASURED:
                continue
            # Of many connections some always lag, and peers that have only begun have little to send.
            rate, faster = (mirror.rate_together, MUCH_FASTER) if several else (mirror.rate, FASTER)
            lagged, mirror.lagged = mirror.lagged, origin.rate > faster * rate
            if mirror.lagged and (lagged or not several):
                mirror.slow += 1
                mirror.left = True
                mirror.news = f"a connection to the origin is {origin.rate / max(rate, 1.0):.0f} times as fast"
                mirror.avoided_until = now + doubled(SLOW_PAUSE, mirror.slow, LONGEST_SLOW)
                self._sample_at = mirror.avoided_until + SAMPLE_AFTER
        for each in self._of.values():
            each.count_anew(now)
