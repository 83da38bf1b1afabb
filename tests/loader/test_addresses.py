"""Every command explains what to do if it is given an address instead of a path."""

from __future__ import annotations

from pathlib import Path

import pytest

import loader
from fetcher.artifact import ArtifactRef
from fetcher.errors import NotFound
from fetcher.testing.origin import Origin
from tests.cli.conftest import last_line
from tests.lab.command import run_fetcher, run_loader

COMMANDS = [("warm",), ("status",), ("drop",), ("hold",), ("copy", "/nonexistent/target")]
ADDRESSES = ["hf://org/model", "https://weights.invalid/model.bin", "s3://bucket/model", "pvc://claim/model"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: str(words[0]))
@pytest.mark.parametrize("uri", ADDRESSES)
def test_every_command_names_fetcher_fetch(command: tuple[str, ...], uri: str) -> None:
    done = run_loader(command[0], uri, *command[1:])
    assert done.returncode == 66
    expected = (
        f"NotFound: {uri} is an address, and only files of this machine can be used here; "
        "run `fetcher fetch` first, and give the path that it prints"
    )
    assert last_line(done.stderr) == expected


@pytest.mark.parametrize("source", ["pvc://claim/model", Path("hf://org/model")])
def test_the_python_interface_raises_the_same_error_for_what_it_does_not_read(source: str | Path) -> None:
    with pytest.raises(NotFound, match="is an address"):
        loader.open(source)


def test_the_directory_of_a_fetched_artifact_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Origin() as origin:
        origin.add_repo("org/model", {"config.json": b"{}"})
        monkeypatch.setenv("HF_ENDPOINT", origin.endpoint)
        monkeypatch.setenv("FETCHER_CACHE_DIR", str(tmp_path))
        assert run_fetcher("fetch", "hf://org/model").returncode == 0
    done = run_loader("warm", "hf://org/model")
    assert last_line(done.stderr).endswith(f"give its directory in the cache: {tmp_path / ArtifactRef('hf://org/model').key}")


def test_a_signature_is_not_shown() -> None:
    done = run_loader("warm", "https://weights.invalid/model.safetensors?X-Amz-Signature=secret")
    assert "secret" not in done.stdout + done.stderr


def test_a_missing_path_with_a_colon_is_not_an_address(tmp_path: Path) -> None:
    assert last_line(run_loader("warm", str(tmp_path / "a:b")).stderr) == f"NotFound: {tmp_path}/a:b does not exist"
