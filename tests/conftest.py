"""Every test runs in a clean environment and may use the lab's real parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.lanes import rank

if TYPE_CHECKING:
    from tests.lab.scheduling import Lanes

pytest_plugins = ["tests.lab.fixtures", "tests.lab.reclaim"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest lanes first, so that no other lane waits for them at the end."""
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes:
    from tests.lab.scheduling import Lanes

    return Lanes(config, log)
