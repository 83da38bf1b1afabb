"""Write every reference page."""

from __future__ import annotations

from docs.generator import DOCS, PAGES

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
