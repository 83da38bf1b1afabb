"""The plot and the table of the README show the figures of the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.overview import PEERS, main, seconds, transferred, verified

REPOSITORY = Path(__file__).parents[2]
REPORT = REPOSITORY / "benchmarks" / "reports" / "2026-11-21.md"
TEXT = REPORT.read_text()
COLUMNS = ("wall, s", "CPU, s/GB", "wall with sha256sum, s", "wall with openssl dgst, s")
NAMES = {
    "fetcher, every digest verified": "fetcher",
    "curl --parallel": "curl",
    "a bare `recv_into` + `pwrite` loop": "bare loop",
}


def rows_of_the_readme() -> dict[str, list[str]]:
    """Return the cells of the table on fetching, by contender."""
    table = (REPOSITORY / "README.md").read_text().partition("| | wall, s |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| \**(?:limit: )?(\w.*?)\** \| (.*) \|$", table, re.MULTILINE)
    return {NAMES.get(name, name): [cell.strip(" *") for cell in cells.split("|")] for name, cells in rows}


def test_the_plot_shows_the_figures_of_the_report() -> None:
    plot = (REPOSITORY / "docs" / "rates.svg").read_text()
    for rates in (verified(TEXT), transferred(TEXT)):
        for name, rate in rates.items():
            assert f">{name}</text>" in plot
            assert f">{rate:.2f}</text>" in plot


def test_the_table_shows_the_figures_of_the_report() -> None:
    rows = rows_of_the_readme()
    assert len(rows) == 9
    for place, column in enumerate(COLUMNS):
        measured = seconds(TEXT, column)
        shown = {name: float(cells[place]) for name, cells in rows.items() if cells[place]}
        assert shown == {name: pytest.approx(measured[name], abs=0.051) for name in shown}
        assert set(PEERS) <= set(shown)


def test_the_same_report_gives_the_same_plot(tmp_path: Path) -> None:
    for name in ("one", "two"):
        main(REPORT, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("text", ["", "# A report\n\n## 4 shards\n\nnothing\n", TEXT.replace("wall, s", "walls")])
def test_a_report_without_the_figures_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"4 shards|wall"):
        seconds(text, "wall, s")
