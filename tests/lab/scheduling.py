"""Tests side by side with pytest-xdist: a process takes a whole lane."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.lab.lanes import lane_of


class Lanes(LoadScopeScheduling):
    """Hands out lanes in the order of the tests."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # a lane's time does not follow from the number of its tests

    def _split_scope(self, nodeid: str) -> str:
        return lane_of(nodeid)
