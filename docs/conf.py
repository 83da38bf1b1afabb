"""How Sphinx makes a site of these pages: `make docs`. The pages are plain Markdown, so that the repository shows them too."""

from __future__ import annotations

import re
from typing import Any

project = "weightlift"
extensions = ["myst_parser"]
html_theme = "alabaster"
html_theme_options = {"fixed_sidebar": True, "page_width": "72em", "description": "model weights for inference engines"}
html_title = "weightlift"
myst_heading_anchors = 4
exclude_patterns = ["generator"]
html_copy_source = False
html_show_copyright = False

CHAPTERS = {
    "Start": ["getting-started", "stores", "layouts"],
    "Use": [
        "kubernetes",
        "cluster",
        "cluster-kserve",
        "systems",
        "loading",
        "caching",
        "serving",
        "mirrors",
        "peers",
        "operations",
        "dropins",
    ],
    "When it fails": ["errors"],
    "Reference": ["cli", "loader", "agent", "controller", "environment", "exit-codes", "events", "metrics", "manifest"],
}
"""The order of the pages in the site's navigation."""
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _prepare)


def _prepare(app: Any, name: str, source: list[str]) -> None:  # noqa: ARG001 - the signature that Sphinx calls
    """Change the text of a page before it is read."""
    source[0] = without_outer_links(source[0])
    if name == "index":
        source[0] += navigation()


def without_outer_links(text: str) -> str:
    """Replace each link to a file outside docs/, which the site does not have, by its text and the file's path."""
    return _OUTSIDE.sub(_named, text)


def _named(match: re.Match[str]) -> str:
    text, path = match.groups()
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


def navigation() -> str:
    """The chapters, as Sphinx reads them."""
    chapters = (
        "\n".join([f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n", *pages, "```\n"]) for title, pages in CHAPTERS.items()
    )
    return "".join(chapters)
