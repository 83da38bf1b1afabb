"""Metrics in a file that a collector reads at any moment."""

from __future__ import annotations

from pathlib import Path

from fetcher.telemetry.exposition import Metric
from fetcher.telemetry.textfile import Textfile


def textfile(path: Path, value: list[int]) -> Textfile:
    return Textfile(path, lambda: [Metric("fetcher_files", "gauge", "Files.", value[-1])])


def test_it_is_replaced_atomically_and_readable_by_others(tmp_path: Path) -> None:
    path, values = tmp_path / "m.prom", [1]
    written = textfile(path, values)
    for value in (1, 2):
        values.append(value)
        before = path.stat().st_ino if path.exists() else None
        assert written.write() is None
        assert path.stat().st_ino != before
    assert "fetcher_files 2\n" in path.read_text()
    assert (path.stat().st_mode & 0o777, [entry.name for entry in tmp_path.iterdir()]) == (0o644, ["m.prom"])


def test_a_problem_is_reported_once_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    path.mkdir()
    written = textfile(path, [1])
    warning = written.write()
    assert warning is not None
    assert (warning.reason, "cannot write the metrics" in warning.message) == ("CannotWrite", True)
    assert written.write() is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.prom"]


def test_another_problem_is_reported_too_and_the_file_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "directory" / "m.prom"
    written = textfile(path, [1])
    assert written.write() is not None
    path.parent.write_text("")
    assert written.write() is not None
    path.parent.unlink()
    path.parent.mkdir()
    assert written.write() is None
    assert path.exists()
