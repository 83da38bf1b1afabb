"""A directory as a source: behaviour beyond the contract of all sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from fetcher.errors import UsageError
from fetcher.sources import local
from fetcher.sources.local import LocalSource


async def test_a_directory_with_too_many_files_is_refused_before_it_is_walked_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_FILES", 3)
    for number in range(3):
        (tmp_path / f"{number}").touch()
    assert len((await LocalSource(tmp_path).list(None)).files) == 3
    (tmp_path / "one-more").touch()
    with pytest.raises(UsageError, match="contains more than 3 files; give the model's own directory"):
        await LocalSource(tmp_path).list(None)
