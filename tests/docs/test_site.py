"""`make docs` builds a site without a warning. Sphinx warns of broken links and anchors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.conf import CHAPTERS, without_outer_links
from tests.docs.pages import REPOSITORY

PAGES = {path.stem for path in (REPOSITORY / "docs").glob("*.md")}


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    words = ["-m", "sphinx", "--quiet", "--fail-on-warning", "-d", f"{target}-cache", str(source), str(target)]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def test_the_site_has_every_page_and_loads_nothing_from_another_host(tmp_path: Path) -> None:
    done = build(REPOSITORY / "docs", tmp_path / "site")
    assert (done.returncode, done.stderr) == (0, "")
    for page in PAGES:
        text = (tmp_path / "site" / f"{page}.html").read_text()
        assert re.findall(r"""(?:src|<link[^>]* href)=["']?(?:https?:)?//[^"' >]*""", text) == []


@pytest.mark.parametrize("link", ["nothing.md", "errors.md#nothing"])
def test_a_broken_link_fails_the_build(link: str, tmp_path: Path) -> None:
    docs = shutil.copytree(REPOSITORY / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("generator", "__pycache__"))
    with (docs / "index.md").open("a") as page:
        page.write(f"\n[nowhere]({link})\n")
    done = build(docs, tmp_path / "site")
    assert done.returncode != 0
    assert "nothing" in done.stderr


def test_the_navigation_has_every_page_once() -> None:
    assert sorted(page for pages in CHAPTERS.values() for page in pages) == sorted(PAGES - {"index"})


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[the image](../k8s/images/README.md)", "the image (`k8s/images/README.md`)"),
        ("[k8s/README.md](../k8s/README.md)", "`k8s/README.md`"),
        ("[`k8s/README.md`](../k8s/README.md)", "`k8s/README.md`"),
        ("[errors](errors.md#usage)", "[errors](errors.md#usage)"),
    ],
)
def test_a_link_out_of_the_site_becomes_the_name_of_the_file(written: str, shown: str) -> None:
    assert without_outer_links(f"See {written}.") == f"See {shown}."
