"""One owner at a time builds an artifact, among threads, processes, pods and nodes, without a lock.

::

    staging/<name>/
        data.<owner>/       what is being built; whoever's name it bears owns the lease
        lease.<owner>       its sign: a counter that its owner raises every few seconds, and its progress
        journal.<owner>     which chunks are written

Acquire: build the directory aside and rename it onto `staging/<name>`, which fails unless that is absent or empty. Take over:
rename `data.<old>` to `data.<new>`, which one contender wins. Both are atomic on NFS too. No right rests on a lock: `flock`
does nothing, or is refused, on many of the volumes this runs on (what one can prove, `sign` explains).

What is *not* safe: the rename fences look-ups by path only. A paused owner's open descriptors go on writing into the same
inodes. Hence `Lease.trusted`: only what owners that are proven dead (or said that they closed everything) left behind is
continued in place; `salvage` gives everything else new inodes.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fetcher.errors import LeaseLost
from fetcher.filesystem import MOST_NAMES, first_names, network_filesystem, sync_directory
from fetcher.store.beneath import make_directories, remove, remove_directory, remove_tree, rename
from fetcher.store.layout import base_of
from fetcher.store.owner import Owner
from fetcher.store.sign import Sign, check_sign, given_up, parse_sign, read_sign

RENEW_EVERY = 2.0
"""Seconds. Well below half of the shortest patience below, so that a few lost renewals are harmless."""
STALE_LOCAL, STALE_NETWORK = 60.0, 180.0
"""Seconds without change until an owner counts as gone. An NFS client may show an old file for `acdirmax`, 60 s."""


_HELD: set[str] = set()
"""Owners of this process that still work, from before their names can be seen: the process lives on after a fetch failed."""


def patience(directory: Path) -> float:
    """How long an owner's counter may stand still, in seconds, on the filesystem of `directory`."""
    return STALE_NETWORK if network_filesystem(directory) else STALE_LOCAL


def monotonic() -> float:
    """Seconds on a clock that no one sets and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a waiter sees: whose lease it is (None: nobody's), its file's bytes, and what they say."""

    owner: str | None
    sign: bytes
    fetched: int | None = None
    total: int | None = None
    abandoned: bool = False
    """The owner said it is done, or is proven dead: no need to wait."""


class Watch:
    """How long an owner has shown no sign of life, by the waiter's own clock; clocks of two nodes are never compared."""

    def __init__(self) -> None:
        self._seen: tuple[str | None, bytes] | None = None
        self._since = 0.0

    def silence(self, observation: Observation, now: float) -> float:
        """Seconds since `observation` last changed."""
        current = (observation.owner, observation.sign)
        if current != self._seen:
            self._seen, self._since = current, now
        return now - self._since


class Lease:
    """The right to build in `data`. Held until `release` (others may continue at once) or `dissolve` (nothing is left)."""

    def __init__(
        self,
        directory: Path,
        owner: Owner,
        sign: Sign,
        *,
        stale: float,
        formers: tuple[str, ...] = (),
        trusted: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.directory = directory
        self._base = base_of(directory)
        self.owner = str(owner)
        self.data = directory / f"data.{owner}"
        self.journal_path = directory / f"journal.{owner}"
        self.formers = formers
        self.trusted = trusted
        self._sign = sign
        self.stale = stale
        self._clock = clock
        self._counter = 0
        self._renewed = clock()
        self._lost = False
        self._placing = False

    def renew(self, *, fetched: int = 0, total: int | None = None) -> None:
        """Show life. Raises LeaseLost when somebody took over, or when this comes too late to be safe."""
        self.check()
        if self._placing:
            # The sign is gone already; `check` ends this in time.
            self._still_mine()
            return
        self._counter += 1
        self._write_sign({"counter": self._counter, "fetched": fetched, "total": total})
        self._still_mine()
        self._renewed = self._clock()

    def check(self) -> None:
        """Raises LeaseLost unless a renewal succeeded within half the time after which others may take over."""
        if self._lost:
            self._lose("the lease is lost")
        if self._clock() - self._renewed > self.stale / 2:
            self._lose(f"no sign of life could be given for {self.stale / 2:.0f} s (was the process stopped?)")

    def keep(self) -> None:
        """Show life if the last time is a while ago: for loops of many small steps. Raises LeaseLost."""
        self.check()
        if self._clock() - self._renewed > RENEW_EVERY:
            self.renew()

    def release(self) -> None:
        """Everything is closed: whoever comes next may continue at once, in the same inodes."""
        _HELD.discard(self.owner)
        with suppress(OSError, LeaseLost):
            if not self._lost and self.data.is_dir():
                self._write_sign({"counter": self._counter + 1, "released": True})
        self._sign.close()

    def forget_formers(self) -> None:
        """What former owners left beside `data` is no longer needed."""
        for former in self.formers:
            for prefix in ("lease", "journal"):
                remove(self._base, self.directory / f"{prefix}.{former}")
        # Every inode that is left is one's own, or of owners that are proven dead.
        self.formers, self.trusted = (), True

    def prepare_to_place(self) -> None:
        """The manifest is sealed in `data`: drop journal and sign, so that nothing but `data` is left to be moved away."""
        self.check()
        remove(self._base, self.journal_path)
        self._sign.remove()
        self._placing = True
        self._still_mine()

    def dissolve(self) -> None:
        """Remove all that is left of the staging directory."""
        _HELD.discard(self.owner)
        if not self._lost:
            remove_tree(self._base, self.data)
            with suppress(OSError):
                self.forget_formers()
                remove(self._base, self.journal_path)
                self._sign.remove()
                remove_directory(self._base, self.directory)
        self._sign.close()

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """A change that failed because `data` has another name now is a lost lease. Raises LeaseLost."""
        try:
            yield
        except FileNotFoundError:
            self._still_mine()
            raise

    def _still_mine(self) -> None:
        if not self.data.is_dir():
            self._lose("another process took over the lease")

    def _lose(self, why: str) -> NoReturn:
        self._lost = True
        raise LeaseLost(f"{why}; nothing was published by this process, run the same command again")

    def _write_sign(self, fields: dict[str, object]) -> None:
        try:
            self._sign.write(fields)
        except FileNotFoundError:
            self._still_mine()
            self._lose(f"lease.{self.owner} was removed or replaced, by which this process shows life")


def acquire(staging: Path, name: str, *, stale: float, clock: Callable[[], float] = monotonic) -> Lease | None:
    """A new, empty lease; None when somebody holds it. Raises OSError."""
    owner, directory = _new_owner(), staging / name
    draft, base = staging / f"tmp.{uuid.uuid4().hex}", base_of(directory)
    try:
        make_directories(base_of(staging), draft / f"data.{owner}")
        sign = Sign.create(draft / f"lease.{owner}")
    except BaseException:
        remove_tree(base, draft)
        _HELD.discard(str(owner))
        raise
    try:
        rename(base, draft, base, directory)
    except OSError as error:
        # On NFS a rename that succeeded can report an error, when the reply was lost: look for one's own name.
        if not (directory / f"data.{owner}").is_dir():
            remove_tree(base, draft)
            sign.close()
            _HELD.discard(str(owner))
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return None
            raise
    sign.moved(directory / f"lease.{owner}")
    sync_directory(staging)
    _clear_drafts(staging)
    return Lease(directory, owner, sign, stale=stale, clock=clock)


def observe(directory: Path) -> Observation | None:
    """Who holds the lease now; None when it is free."""
    try:
        names = first_names(directory, "data.", limit=1) or first_names(directory)
    except FileNotFoundError:
        return None
    if not names:
        return None
    owner = next((name.removeprefix("data.") for name in names if name.startswith("data.")), None)
    if owner is None:
        return _observe_shell(directory, names)
    path = directory / f"lease.{owner}"
    sign = read_sign(path)
    fields = parse_sign(sign)
    return Observation(owner, sign, fields.get("fetched"), fields.get("total"), abandoned=_closed(owner, path, fields))


def _observe_shell(directory: Path, names: Iterable[str]) -> Observation:
    """Left by an interrupted removal, whose owner's sign may show that it is dead, or by hand."""
    owners = {name.partition(".")[2] for name in names if name.startswith(("lease.", "journal."))}
    dead = bool(owners) and all(_dead(each, directory / f"lease.{each}") for each in owners)
    return Observation(None, b"\0".join(sorted(os.fsencode(name) for name in names)), abandoned=dead)


def take_over(directory: Path, seen: Observation, *, stale: float, clock: Callable[[], float] = monotonic) -> Lease | None:
    """Continue what `seen.owner` left; None when somebody else was faster. Raises OSError, and NewerFormat for what a later
    version left: it is for that one to continue."""
    if seen.owner is None:
        _clear_shell(directory)
        return None
    check_sign(seen.sign, what=str(directory / f"lease.{seen.owner}"))
    owner = _new_owner()
    mine = directory / f"data.{owner}"
    try:
        rename(base_of(mine), directory / f"data.{seen.owner}", base_of(mine), mine)
    except OSError:
        if not mine.is_dir():
            _HELD.discard(str(owner))
            return None
    formers = _formers(directory, seen.owner, str(owner))
    signs = {former: directory / f"lease.{former}" for former in formers}
    known = len(formers) < MOST_NAMES  # else there may be more
    trusted = known and all(_closed(former, path, parse_sign(read_sign(path))) for former, path in signs.items())
    try:
        sign = Sign.create(directory / f"lease.{owner}")
    except BaseException:
        _HELD.discard(str(owner))  # what was taken over can be taken over again
        raise
    return Lease(directory, owner, sign, stale=stale, formers=formers, trusted=trusted, clock=clock)


def _new_owner() -> Owner:
    owner = Owner.new()
    _HELD.add(str(owner))
    return owner


def _formers(directory: Path, last: str, mine: str) -> tuple[str, ...]:
    # A takeover that was itself cut short leaves the signs of those before it: all of them must be trusted.
    names = {last}
    names |= {name.partition(".")[2] for name in first_names(directory, "lease.", "journal.")}
    return tuple(sorted(names - {mine}))


def _closed(former: str, sign: Path, fields: Mapping[str, Any]) -> bool:
    """`fields`: what its sign says."""
    return bool(fields.get("released")) or _dead(former, sign)


def _dead(name: str, sign: Path) -> bool:
    owner = Owner.parse(name)
    if owner is None:
        return False
    if owner.is_this_process:
        return name not in _HELD
    return owner.proven_dead() or (owner.of_this_boot and given_up(sign))


def _clear_shell(directory: Path) -> None:
    """A directory without `data.*`, left by hand or by an interrupted removal: make it acquirable."""
    for name in first_names(directory, "lease.", "journal."):
        remove(base_of(directory), directory / name)
    with suppress(OSError):
        remove_directory(base_of(directory), directory)


def _clear_drafts(staging: Path) -> None:
    """Drafts of those who died in the middle of `acquire`. Empty but for a sign; best effort."""
    with suppress(OSError):
        for draft in first_names(staging, "tmp."):
            with suppress(FileNotFoundError):  # its owner has just renamed or removed it
                owners = [name.removeprefix("data.") for name in first_names(staging / draft, "data.")]
                if owners and all(_dead(owner, staging / draft / f"lease.{owner}") for owner in owners):
                    remove_tree(base_of(staging / draft), staging / draft)
