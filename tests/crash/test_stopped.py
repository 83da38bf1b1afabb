"""An owner stopped at any step of a commit, replaced, and continued: after it lost its lease it changes nothing published."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from fetcher.errors import LeaseLost
from fetcher.testing.origin import Origin
from tests.crash.conftest import NEW, OLD, Successor, Victims
from tests.lab.waiting import wait_until

LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "keyed": ("cache_dir", {}),
    "keyed, without exchange": ("cache_dir", {"exchange": False}),
    "in place": ("dest", {}),
    "hf-cache": ("cache_dir", {"layout": "hf-cache"}),
}
THIRD = {**NEW, "config.json": b'{"seed": "c"}', "tokenizer.json": b"[]"}
"""The content that the successor publishes: fewer files than the stopped owner lists, with other content."""
del THIRD["model.safetensors.index.json"]


def everything(root: Path) -> dict[str, bytes | str]:
    """Everything that readers see: files and links, with our manifests."""
    private = root / ".fetcher"
    return {
        path.relative_to(root).as_posix(): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if (path.is_symlink() or path.is_file())
        and not any(path.is_relative_to(private / name) for name in ("staging", "old", "ready", "usage"))
    }


def succeed(run: Callable[[], object]) -> None:
    """Run the successor. It holds its lease for half a second without renewing it, which a busy machine may exceed."""
    for _ in range(2):
        with suppress(LeaseLost):
            run()
            return
    run()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stopped_owner_changes_nothing_that_its_successor_published(
    layout: str, origin: Origin, victims: Victims, finish: Successor, tmp_path: Path
) -> None:
    option, fields = LAYOUTS[layout]
    plain = {name: value for name, value in fields.items() if name != "exchange"}
    again: dict[str, Any] = {"refresh": "on-change", "lease_stale": 1.0}
    repository = origin.add_repo("org/model", OLD)
    finish(**{option: tmp_path / "old", **plain})
    for number in steps(victims, origin, repository, tmp_path, option, fields):
        root = tmp_path / f"stopped-{number}"
        shutil.copytree(tmp_path / "old", root, symlinks=True)
        origin.update_repo(repository, NEW)
        stopped = victims.start(**{option: root, **again, "stop_at": number, **fields})
        wait_until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED, "the owner to stop")  # noqa: B023
        origin.update_repo(repository, THIRD)
        succeed(lambda: finish(**{option: root, **again, **plain}))  # noqa: B023
        published = everything(root)
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(timeout=30) in (0, 74, 75)
        assert everything(root) == published
        shutil.rmtree(root)


def steps(
    victims: Victims, origin: Origin, repository: Any, tmp_path: Path, option: str, fields: dict[str, Any]
) -> Iterator[int]:
    """The number of each step of a refresh, except the final steps with no work after them."""
    shutil.copytree(tmp_path / "old", tmp_path / "whole", symlinks=True)
    origin.update_repo(repository, NEW)
    code, names, stderr = victims.run(**{option: tmp_path / "whole", "refresh": "on-change", **fields})
    assert code == 0, stderr
    assert len(names) >= 3
    yield from range(len(names))
