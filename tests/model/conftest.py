"""A root for the model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm") / f"weightlift-model-{os.getpid()}"  # noqa: S108  a filesystem in memory is fast
    yield shared if shared.parent.is_dir() else tmp_path / "root"
    shutil.rmtree(shared, ignore_errors=True)
