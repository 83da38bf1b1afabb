"""The states of one file of a transfer."""

from __future__ import annotations

import pytest

from fetcher.engine.states import TRANSITIONS, Change, State, after


def test_a_file_is_hashed_in_turns_and_then_sealed() -> None:
    state = State.OPEN
    for change in (Change.HASH, Change.DONE, Change.HASH, Change.DONE, Change.SEAL, Change.SEALED):
        state = after(state, change)
    assert state is State.SEALED


@pytest.mark.parametrize(
    ("working", "end"), [(State.HASHING, Change.DONE), (State.SEALING, Change.DONE), (State.SEALING, Change.SEALED)]
)
def test_a_restart_waits_for_the_thread_that_reads_the_file(working: State, end: Change) -> None:
    stopping = after(working, Change.RESTART)
    assert stopping is State.STOPPING
    assert after(stopping, end) is State.RESTARTING
    assert after(State.RESTARTING, Change.RESTARTED) is State.OPEN


def test_a_restart_can_be_requested_several_times() -> None:
    for state in (State.STOPPING, State.RESTARTING):
        assert after(state, Change.RESTART) is state


def test_a_sealed_file_never_changes() -> None:
    assert not [change for state, change in TRANSITIONS if state is State.SEALED]


def test_each_state_can_be_reached_and_all_but_the_last_can_be_left() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.SEALED}


def test_an_impossible_change_is_an_error() -> None:
    with pytest.raises(ValueError, match="a file in state SEALED cannot change by HASH"):
        after(State.SEALED, Change.HASH)
