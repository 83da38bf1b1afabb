"""A source that serves other content than it lists is listed again, three times at most."""

from __future__ import annotations

import pytest

from fetcher.artifact import Listing
from fetcher.engine.changes import AGAIN, Changes
from fetcher.errors import ContentChanged, KeepsChanging

ERROR = ContentChanged("other content", path="model.bin")


def after(*revisions: str) -> Changes:
    """The state after a change in each of these listings but the last."""
    changes = Changes()
    for revision in revisions[:-1]:
        changes.listed(Listing(revision, ()))
        changes.met(ERROR)
    changes.listed(Listing(revisions[-1], ()))
    return changes


def test_a_source_is_listed_again_three_times() -> None:
    changes = Changes()
    for _ in range(AGAIN):
        assert not changes.last
        assert "asking the source again" in changes.met(ERROR)
    assert AGAIN == 3
    assert changes.last


def test_a_source_that_changes_each_time_may_be_stable_later() -> None:
    with pytest.raises(KeepsChanging, match="when nobody writes there") as caught:
        after("1", "2", "3", "4").met(ERROR)
    assert (caught.value.exit_code, caught.value.retryable, caught.value.path) == (75, True, "model.bin")


def test_a_source_that_lists_the_same_and_serves_something_else_contradicts_itself() -> None:
    with pytest.raises(ContentChanged) as caught:
        after("1", "1", "1", "1").met(ERROR)
    assert (caught.value.exit_code, caught.value.retryable) == (65, False)


def test_a_source_that_changed_during_its_last_listing_keeps_changing() -> None:
    changes = Changes()
    for _ in range(AGAIN):
        changes.met(ERROR)
    with pytest.raises(KeepsChanging):
        changes.met(ERROR)
