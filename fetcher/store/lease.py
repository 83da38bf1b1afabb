"""Leases: one owner at a time builds an artifact, across threads, processes, pods and nodes, without locks.

::

    staging/<name>/
        data.<owner>/       the files under construction; the owner in this name holds the lease
        lease.<owner>       the heartbeat: a counter that the owner raises every few seconds, and its progress
        journal.<owner>     the chunks that are written

Acquire: create the directory under a temporary name and rename it to `staging/<name>`, which fails unless that is absent or
empty. Take over: rename `data.<old>` to `data.<new>`; only one contender succeeds. Both renames are atomic, also on NFS. The
lease does not depend on `flock`, which does nothing or is refused on many volumes (`heartbeat` uses it only to prove a death).

Not safe: the rename fences look-ups by path only. A paused owner can still write into the same inodes through its open
descriptors. Hence `Lease.inodes_reusable`: files are continued in place only if their owners are proven dead, or recorded
that they closed everything. `salvage` gives all other files new inodes.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypedDict

from fetcher.errors import LeaseLost
from fetcher.filesystem import MOST_NAMES, first_names, network_filesystem, sync_directory
from fetcher.store.beneath import make_directories, remove, remove_directory, remove_tree, rename
from fetcher.store.heartbeat import Heartbeat, check_heartbeat, given_up, parse_heartbeat, read_heartbeat
from fetcher.store.layout import base_of
from fetcher.store.owner import Owner
from fetcher.values import dataclass

RENEW_EVERY = 2.0
"""Seconds between renewals. Well below half of STALE_LOCAL, so that a few lost renewals are harmless."""
STALE_LOCAL, STALE_NETWORK = 60.0, 180.0
"""Seconds without change after which an owner counts as gone. An NFS client may show an old file for `acdirmax`, 60 s."""


_HELD: set[str] = set()
"""Active owners of this process, added before their names become visible. The process may outlive a failed fetch."""


def default_stale_time(directory: Path) -> float:
    """Return the seconds after which an unchanged heartbeat is stale on the filesystem of `directory`."""
    return STALE_NETWORK if network_filesystem(directory) else STALE_LOCAL


def monotonic() -> float:
    """Return seconds of a clock that nobody can set and that runs while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Observation:
    """A waiter's view of a lease: its owner (None: nobody), the raw heartbeat, and the progress in bytes."""

    owner: str | None
    heartbeat: bytes
    fetched: int | None = None
    total: int | None = None
    abandoned: bool = False
    """The owner released the lease or is proven dead: no need to wait."""
    reserved: int = 0
    """Bytes of the volume that the owner was promised, those that it occupies already included."""
    evicting: bool = False
    """The owner removes the artifact: it is no hit."""


class Watch:
    """Measures how long a heartbeat has not changed, by the waiter's own clock. Clocks of two nodes are never compared."""

    def __init__(self) -> None:
        self._seen: tuple[str | None, bytes] | None = None
        self._since = 0.0

    def silence(self, observation: Observation, now: float) -> float:
        """Return the seconds since `observation` last changed. `now` is in seconds."""
        current = (observation.owner, observation.heartbeat)
        if current != self._seen:
            self._seen, self._since = current, now
        return now - self._since


class _Progress(TypedDict):
    fetched: int
    total: int | None


class Lease:
    """The right to build in `data`, held until `release` (others may continue at once) or `dissolve` (nothing is left)."""

    def __init__(
        self,
        directory: Path,
        owner: Owner,
        heartbeat: Heartbeat,
        *,
        stale: float,
        previous_owners: tuple[str, ...] = (),
        inodes_reusable: bool = True,
        evicting: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.directory = directory
        self._base = base_of(directory)
        self.owner = str(owner)
        self.data = directory / f"data.{owner}"
        self.journal_path = directory / f"journal.{owner}"
        self.previous_owners = previous_owners
        self.inodes_reusable = inodes_reusable
        self.reserved = 0
        """Bytes of the volume that this owner was promised. Every heartbeat says it, so the promise ends with the lease."""
        self._evicting = evicting
        self._progress: _Progress = {"fetched": 0, "total": None}
        self._heartbeat = heartbeat
        self.stale = stale
        self._clock = clock
        self._counter = 0
        self._renewed = clock()
        self._lost = False
        self._placing = False

    def renew(self, *, fetched: int = 0, total: int | None = None) -> None:
        """Write the heartbeat, with the progress in bytes. Raises LeaseLost after a takeover, or if the last one is too old."""
        self.check()
        if self._placing:
            # The heartbeat is removed already; `check` bounds how long this may last.
            self._check_owned()
            return
        self._progress = {"fetched": fetched, "total": total}
        self._beat()
        self._check_owned()
        self._renewed = self._clock()

    def reserve(self, size: int) -> None:
        """Tell others that this owner was promised `size` bytes of the volume. Raises LeaseLost, OSError."""
        self.check()
        self.reserved = size
        self._beat()

    def check(self) -> None:
        """Raise LeaseLost unless a renewal succeeded within half the time after which others may take over."""
        if self._lost:
            self._lose("the lease is lost")
        if self._clock() - self._renewed > self.stale / 2:
            self._lose(f"the heartbeat could not be written for {self.stale / 2:.0f} s (was the process stopped?)")

    def moment(self) -> float:
        """Return the time of the last renewal by the clock of the volume, in seconds since 1970. Raises OSError.

        Times of other files there can be compared with it. The clock of this host may differ from that of a server.
        """
        return os.stat(self.directory / f"lease.{self.owner}", follow_symlinks=False).st_mtime

    def keep(self) -> None:
        """Renew the lease if the last renewal is more than RENEW_EVERY ago: for loops of many small steps. Raises LeaseLost."""
        self.check()
        if self._clock() - self._renewed > RENEW_EVERY:
            self.renew(**self._progress)

    def release(self) -> None:
        """Record that every file is closed. The next owner may continue at once, in the same inodes."""
        _HELD.discard(self.owner)
        with suppress(OSError, LeaseLost):
            if not self._lost and self.data.is_dir():
                self._write_heartbeat({"counter": self._counter + 1, "released": True})
        self._heartbeat.close()

    def forget_previous_owners(self) -> None:
        """Remove the heartbeats and journals of previous owners. Raises OSError."""
        for previous in self.previous_owners:
            for prefix in ("lease", "journal"):
                remove(self._base, self.directory / f"{prefix}.{previous}")
        # Every inode that is left belongs to this owner, or to owners that are proven dead.
        self.previous_owners, self.inodes_reusable = (), True

    def prepare_to_place(self) -> None:
        """Remove journal and heartbeat after the manifest is sealed, so that only `data` is left. Raises LeaseLost, OSError."""
        self.check()
        remove(self._base, self.journal_path)
        self._heartbeat.remove()
        self._placing = True
        self._check_owned()

    def dissolve(self) -> None:
        """Remove the rest of the staging directory."""
        _HELD.discard(self.owner)
        if not self._lost:
            remove_tree(self._base, self.data)
            with suppress(OSError):
                self.forget_previous_owners()
                remove(self._base, self.journal_path)
                self._heartbeat.remove()
                remove_directory(self._base, self.directory)
        self._heartbeat.close()

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """Turn a FileNotFoundError into LeaseLost if another owner has renamed `data`."""
        try:
            yield
        except FileNotFoundError:
            self._check_owned()
            raise

    def _check_owned(self) -> None:
        if not self.data.is_dir():
            self._lose("another process took over the lease")

    def _lose(self, why: str) -> NoReturn:
        self._lost = True
        raise LeaseLost(f"{why}; nothing was published by this process, run the same command again")

    def _beat(self) -> None:
        self._counter += 1
        self._write_heartbeat({"counter": self._counter, **self._progress, "reserved": self.reserved})

    def _write_heartbeat(self, fields: dict[str, object]) -> None:
        try:
            self._heartbeat.write({**fields, **_marker(self._evicting)})
        except FileNotFoundError:
            self._check_owned()
            self._lose(f"the heartbeat lease.{self.owner} was removed or replaced")


def acquire(
    staging: Path, name: str, *, stale: float, evicting: bool = False, clock: Callable[[], float] = monotonic
) -> Lease | None:
    """Return a new, empty lease, or None if somebody holds it. `evicting`: to remove the artifact. Raises OSError."""
    owner, directory = _new_owner(), staging / name
    draft, base = staging / f"tmp.{uuid.uuid4().hex}", base_of(directory)
    try:
        make_directories(base_of(staging), draft / f"data.{owner}")
        heartbeat = Heartbeat.create(draft / f"lease.{owner}", _marker(evicting))
    except BaseException:
        remove_tree(base, draft)
        _HELD.discard(str(owner))
        raise
    try:
        rename(base, draft, base, directory)
    except OSError as error:
        # On NFS a successful rename reports an error if the reply was lost: look for our own name.
        if not (directory / f"data.{owner}").is_dir():
            remove_tree(base, draft)
            heartbeat.close()
            _HELD.discard(str(owner))
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return None
            raise
    heartbeat.moved(directory / f"lease.{owner}")
    sync_directory(staging)
    _clear_drafts(staging)
    return Lease(directory, owner, heartbeat, stale=stale, evicting=evicting, clock=clock)


def observe(directory: Path) -> Observation | None:
    """Return the state of the lease at `directory`, or None if it is free. Raises OSError."""
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
    heartbeat = read_heartbeat(path)
    fields = parse_heartbeat(heartbeat)
    return Observation(
        owner,
        heartbeat,
        fields.get("fetched"),
        fields.get("total"),
        abandoned=_closed(owner, path, fields),
        reserved=_bytes(fields.get("reserved")),
        evicting=fields.get("evicting") is True,
    )


def being_evicted(directory: Path) -> bool:
    """Return whether a living owner of the lease at `directory` removes the artifact."""
    with suppress(OSError):
        seen = observe(directory)
        return seen is not None and seen.evicting and not seen.abandoned
    return False


def _observe_shell(directory: Path, names: Iterable[str]) -> Observation:
    """Observe a directory without data, left by an interrupted removal or by hand. A heartbeat may prove its owner dead."""
    owners = {name.partition(".")[2] for name in names if name.startswith(("lease.", "journal."))}
    dead = bool(owners) and all(_dead(each, directory / f"lease.{each}") for each in owners)
    return Observation(None, b"\0".join(sorted(os.fsencode(name) for name in names)), abandoned=dead)


def take_over(
    directory: Path, seen: Observation, *, stale: float, evicting: bool = False, clock: Callable[[], float] = monotonic
) -> Lease | None:
    """Take over the lease of `seen.owner`; None if somebody else was faster. Raises OSError, and NewerFormat if a later version
    held it: only that version can continue it."""
    if seen.owner is None:
        _clear_shell(directory)
        return None
    check_heartbeat(seen.heartbeat, what=str(directory / f"lease.{seen.owner}"))
    owner = _new_owner()
    data = directory / f"data.{owner}"
    try:
        rename(base_of(data), directory / f"data.{seen.owner}", base_of(data), data)
    except OSError:
        if not data.is_dir():
            _HELD.discard(str(owner))
            return None
    previous_owners = _previous_owners(directory, seen.owner, str(owner))
    heartbeats = {previous: directory / f"lease.{previous}" for previous in previous_owners}
    complete = len(previous_owners) < MOST_NAMES  # at the limit there may be more
    inodes_reusable = complete and all(
        _closed(previous, path, parse_heartbeat(read_heartbeat(path))) for previous, path in heartbeats.items()
    )
    try:
        heartbeat = Heartbeat.create(directory / f"lease.{owner}", _marker(evicting))
    except BaseException:
        _HELD.discard(str(owner))  # so that the next owner can take over
        raise
    return Lease(
        directory,
        owner,
        heartbeat,
        stale=stale,
        previous_owners=previous_owners,
        inodes_reusable=inodes_reusable,
        evicting=evicting,
        clock=clock,
    )


def _marker(evicting: bool) -> dict[str, object]:
    return {"evicting": True} if evicting else {}


def _bytes(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _new_owner() -> Owner:
    owner = Owner.new()
    _HELD.add(str(owner))
    return owner


def _previous_owners(directory: Path, last: str, own: str) -> tuple[str, ...]:
    # An interrupted takeover leaves the heartbeats of earlier owners: all of them must have closed their files.
    names = {last}
    names |= {name.partition(".")[2] for name in first_names(directory, "lease.", "journal.")}
    return tuple(sorted(names - {own}))


def _closed(owner: str, heartbeat: Path, fields: Mapping[str, Any]) -> bool:
    """Whether `owner` has closed all its files. `fields` are those of its heartbeat."""
    return bool(fields.get("released")) or _dead(owner, heartbeat)


def _dead(name: str, heartbeat: Path) -> bool:
    owner = Owner.parse(name)
    if owner is None:
        return False
    if owner.is_this_process:
        return name not in _HELD
    return owner.proven_dead() or (owner.of_this_boot and given_up(heartbeat))


def _clear_shell(directory: Path) -> None:
    """Empty a directory without `data.*`, left by hand or by an interrupted removal, so that it can be acquired."""
    for name in first_names(directory, "lease.", "journal."):
        remove(base_of(directory), directory / name)
    with suppress(OSError):
        remove_directory(base_of(directory), directory)


def _clear_drafts(staging: Path) -> None:
    """Remove drafts of processes that died during `acquire`. They hold only a heartbeat. Best effort."""
    with suppress(OSError):
        for draft in first_names(staging, "tmp."):
            with suppress(FileNotFoundError):  # a living owner may rename or remove its draft now
                owners = [name.removeprefix("data.") for name in first_names(staging / draft, "data.")]
                if owners and all(_dead(owner, staging / draft / f"lease.{owner}") for owner in owners):
                    remove_tree(base_of(staging / draft), staging / draft)
