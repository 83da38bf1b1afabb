"""What happens to one file of a transfer, and what may happen next.

::

    OPEN ──hash──▶ HASHING ──done──▶ OPEN         a thread hashes what is there
    OPEN ──seal──▶ SEALING ──sealed──▶ SEALED     all is there: compare, sync, close
                   SEALING ──done──▶ OPEN         something was wrong: some of it is fetched again
    HASHING, SEALING ──restart──▶ STOPPING ──done, sealed──▶ RESTARTING
    OPEN ──restart──▶ RESTARTING ──restarted──▶ OPEN

Connections write in OPEN and HASHING. In STOPPING a thread still reads the file, in RESTARTING connections may still write to
it; once nobody does, it begins in a new inode.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """Of one file."""

    OPEN = auto()
    HASHING = auto()
    SEALING = auto()
    SEALED = auto()
    STOPPING = auto()
    RESTARTING = auto()


class Change(Enum):
    """What happened to it."""

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
    (State.STOPPING, Change.SEALED): State.RESTARTING,  # what was sealed is the content that is to be thrown away
    (State.STOPPING, Change.RESTART): State.STOPPING,
    (State.RESTARTING, Change.RESTART): State.RESTARTING,
    (State.RESTARTING, Change.RESTARTED): State.OPEN,
}


def after(state: State, change: Change) -> State:
    """The state that follows. Raises ValueError for a change that can't happen then: a fault of ours."""
    try:
        return TRANSITIONS[state, change]
    except KeyError:
        raise ValueError(f"a file that is {state.name} can't be changed by {change.name}") from None
