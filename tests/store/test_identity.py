"""The identity of a root."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fetcher.store.identity import identity_of, made_identity


def test_a_root_has_none_before_it_is_served_and_keeps_it(tmp_path: Path) -> None:
    assert identity_of(tmp_path) is None
    made = made_identity(tmp_path)
    assert identity_of(tmp_path) == made == made_identity(tmp_path)
    assert [path.name for path in (tmp_path / ".fetcher").iterdir()] == ["node"]


def test_servers_that_begin_together_have_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: made_identity(tmp_path), range(8)))) == 1


@pytest.mark.parametrize("content", ["", "x" * 32, "ab" * 100])
def test_what_is_none_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / ".fetcher").mkdir()
    (tmp_path / ".fetcher" / "node").write_text(content)
    assert identity_of(tmp_path) is None
    assert identity_of(tmp_path) != made_identity(tmp_path) or identity_of(tmp_path) is not None


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("ab" * 16)
    (tmp_path / ".fetcher").mkdir()
    (tmp_path / ".fetcher" / "node").symlink_to(tmp_path / "elsewhere")
    assert identity_of(tmp_path) is None
    made_identity(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "ab" * 16
