"""The files of a model beside its weights, which an engine reads from a directory: configuration, tokenizer, index, code."""

from __future__ import annotations

from fetcher.api import fetch
from loader.checkpoint.locations import EXTENSION, OTHER_WEIGHTS


def fetch_companions(uri: str, revision: str | None) -> str:
    """Fetch them into the cache (`FETCHER_CACHE_DIR`), verified; return their directory. Raises FetchError."""
    exclude = [f"*{suffix}" for suffix in (EXTENSION, *OTHER_WEIGHTS)]
    return str(fetch(uri, revision=revision, exclude=exclude).path)
