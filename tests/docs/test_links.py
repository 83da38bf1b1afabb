"""Every link leads to a file of the repository, and every anchor to a heading. No network is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPOSITORY, anchors, links


def broken(page: Path, text: str) -> list[str]:
    """Return the broken links of `text` on `page`. Links to other hosts are not followed."""
    return [link for link in links(text) if "://" not in link and not _exists(page, link)]


def _exists(page: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.is_relative_to(REPOSITORY) or not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_a_page_has_no_broken_links(page: Path) -> None:
    assert broken(page, page.read_text()) == []


@pytest.mark.parametrize(
    "link", ["nothing.md", "errors.md#nothing", "#nothing", "../../elsewhere.md", "manifest.schema.json#title", "/README.md"]
)
def test_a_broken_link_is_detected(link: str) -> None:
    page = REPOSITORY / "docs" / "index.md"
    assert broken(page, f"# A page\n\nSee [this]({link}).\n") == [link]


def test_a_link_in_code_is_ignored() -> None:
    assert list(links("`[a](b)` and\n\n```text\n[c](d)\n```\n\n[e](f) ![g](h)\n")) == ["f", "h"]


def test_a_heading_that_occurs_twice_has_no_anchor() -> None:
    assert anchors("# One\n\n## Two words, `three`\n\n## Same\n\n## Same\n") == {"one", "two-words-three"}
