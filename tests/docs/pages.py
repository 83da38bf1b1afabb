"""The pages of the repository, their links, and the anchors of their headings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(
            REPOSITORY / name
            for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/LOG.md")
        ),
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "k8s").rglob("*.md"),
    ]
)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links(text: str) -> Iterator[str]:
    """Yield the targets of links and images, except in code."""
    for match in re.finditer(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))):
        yield match[1]


def anchors(text: str) -> set[str]:
    """Return the anchors of headings for which the repository's viewer and the site's generator agree."""
    counts = Counter(map(_of_viewer, re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)))
    return {anchor for anchor, times in counts.items() if times == 1 and anchor == re.sub("-+", "-", anchor).strip("-")}


def _of_viewer(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", "-")


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
