"""An origin for both drop-ins, KServe's own command, and the content of a directory as an engine sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.downloading import CLIENTS
from benchmarks.installation import peers_python
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.availability import missing

MiB = 1024 * 1024
BOOKKEEPING = {".fetcher", ".cache"}
"""Directories for the metadata of ours and of huggingface_hub."""
FILES = {
    "config.json": b'{"architectures": []}',
    "model.safetensors": random_bytes("weights", MiB + 7),
    "tokenizer/vocab.txt": b"one\ntwo\n",
    "README.md": b"# A model\n",
}


@pytest.fixture(scope="session")
def kserve_command() -> tuple[str, ...]:
    """The command of KServe's image."""
    try:
        python = peers_python("fetching")
    except subprocess.CalledProcessError as error:
        missing("kserve-storage", f"it is installed from PyPI, which failed: {error}")
    return str(python), str(CLIENTS / "kserve.py")


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    with Origin(lfs_threshold=MiB) as running:
        running.add_repo("org/model", FILES)
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        # The tests are about errors, so temporary ones are not retried.
        monkeypatch.setenv("FETCHER_RETRY_FOR", "0")
        yield running


def tree(directory: Path) -> dict[str, bytes | str]:
    """Return the content of every file, or `-> target` of every link, by path."""
    entries: dict[str, bytes | str] = {}
    for parent, names, files in os.walk(directory):
        names[:] = [name for name in names if name not in BOOKKEEPING]
        for name in (*files, *names):
            path = Path(parent) / name
            if path.is_symlink():
                entries[path.relative_to(directory).as_posix()] = f"-> {os.readlink(path)}"
            elif path.is_file():
                entries[path.relative_to(directory).as_posix()] = path.read_bytes()
    return entries


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]
