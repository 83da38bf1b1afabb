"""An origin for each test, and a bare socket client that shows what it sends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fetcher.testing.origin import Origin
from tests.origin.wire import Wire


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=["hf_known"], lfs_threshold=1000) as origin:
        yield origin


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire
