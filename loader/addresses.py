"""Addresses of artifacts that users give in place of a path. `loader.open` reads them; other commands explain what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from fetcher.artifact import ArtifactRef, redact
from fetcher.errors import NotFound
from fetcher.manifest import RELATIVE_PATH

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/{1,2}(?=[^/])")
"""One slash matches too: `Path` turns two slashes into one."""


_REMOTE = re.compile(r"(?:hf|s3|gs|az|oci|oci\+fetch|https?)://", re.IGNORECASE)


def is_remote(source: object) -> bool:
    """Whether `source` is an address that is read from its source. Those of local places (`file`, `pvc`) are not."""
    return isinstance(source, str) and _REMOTE.match(source) is not None


def missing_path_error(path: str, why: str = "", *, environ: Mapping[str, str] = os.environ) -> NotFound:
    """Return the error for a missing `path`; `why` is appended to the message.

    For an address the message names the command that fetches it, or the directory in the cache that has it.
    """
    if (match := _ADDRESS.match(path)) is None:
        return NotFound(f"{path} does not exist{why}", path=path)
    uri = f"{match[1]}://{path[match.end() :]}"
    shown = redact(uri)
    problem = f"{shown} is an address, and only files of this machine can be used here"
    if (cached := _in_cache(uri, environ)) is not None:
        return NotFound(f"{problem}; give its directory in the cache: {cached}")
    return NotFound(f"{problem}; run `fetcher fetch` first, and give the path that it prints")


def _in_cache(uri: str, environ: Mapping[str, str]) -> Path | None:
    """Return the directory of a fetched artifact in the cache (`fetcher.settings.default_cache_dir`), or None."""
    root = environ.get("FETCHER_CACHE_DIR")
    if not root:
        base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "/nonexistent"), ".cache")
        root = os.path.join(base, "weightlift")
    directory = Path(root) / ArtifactRef(uri).key
    return directory if (directory / RELATIVE_PATH).is_file() else None
