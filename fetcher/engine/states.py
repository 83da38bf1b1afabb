"""The states of one file of a transfer, and the transitions between them.

::

    OPEN ──hash──▶ HASHING ──done──▶ OPEN         a thread hashes the contiguous bytes
    OPEN ──seal──▶ SEALING ──sealed──▶ SEALED     all bytes are written: compare, sync, close
                   SEALING ──done──▶ OPEN         an error: some bytes are fetched again
    HASHING, SEALING ──restart──▶ STOPPING ──done, sealed──▶ RESTARTING
    OPEN ──restart──▶ RESTARTING ──restarted──▶ OPEN

Connections write in OPEN and HASHING. In STOPPING a thread still reads the file, in RESTARTING connections may still write to
it. Once nobody uses the file, it restarts in a new inode.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """The state of one file."""

    OPEN = auto()
    HASHING = auto()
    SEALING = auto()
    SEALED = auto()
    STOPPING = auto()
    RESTARTING = auto()


class Change(Enum):
    """An event in the life of one file."""

    HASH = auto()
    SEAL = auto()
    DONE = auto()
    SEALED = auto()
    RESTART = auto()
    RESTARTED = auto()


TRANSITIONS: dict[tuple[State, Change], State] = {
    (State.OPEN, Change.HASH): State.HASHING,
    (State.OPEN, Change.SEAL): State.SEALING,
    (State.OPEN, Change.RESTART): State.RESTARTING,
    (State.HASHING, Change.DONE): State.OPEN,
    (State.HASHING, Change.RESTART): State.STOPPING,
    (State.SEALING, Change.DONE): State.OPEN,
    (State.SEALING, Change.SEALED): State.SEALED,
    (State.SEALING, Change.RESTART): State.STOPPING,
    (State.STOPPING, Change.DONE): State.RESTARTING,
    (State.STOPPING, Change.SEALED): State.RESTARTING,  # the sealed content is the one to discard
    (State.STOPPING, Change.RESTART): State.STOPPING,
    (State.RESTARTING, Change.RESTART): State.RESTARTING,
    (State.RESTARTING, Change.RESTARTED): State.OPEN,
}


def after(state: State, change: Change) -> State:
    """Return the next state. Raises ValueError for a change that is impossible in `state`: a bug."""
    try:
        return TRANSITIONS[state, change]
    except KeyError:
        raise ValueError(f"a file in state {state.name} cannot change by {change.name}") from None
