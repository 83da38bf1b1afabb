"""The token of the Hub is found where huggingface_hub finds it, also without importing that package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.testing.origin import Origin
from tests.lab.command import run_fetcher

FIND = "import sys; from fetcher.sources.hub import _find_token; print(_find_token(), 'huggingface_hub' in sys.modules)"
THEIRS = "import huggingface_hub; print(huggingface_hub.get_token() or '')"


def found(program: str, home: Path, variables: dict[str, str]) -> str:
    environ = {"PATH": os.environ["PATH"], "HOME": str(home)}
    environ.update({name: value.replace("HOME", str(home)) for name, value in variables.items()})
    return subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("variables", "files", "imported"),
    [
        ({}, {}, False),
        ({"HF_TOKEN": " hf_given\n"}, {".cache/huggingface/token": "hf_stored"}, False),
        ({"HUGGING_FACE_HUB_TOKEN": "hf_given"}, {}, False),
        ({"HF_TOKEN": ""}, {}, False),
        ({"HF_TOKEN": ""}, {".cache/huggingface/token": "hf_stored\n"}, True),
        ({"HF_HOME": "HOME/elsewhere"}, {"elsewhere/token": "hf_stored"}, True),
        ({"HF_HOME": "~/elsewhere"}, {".cache/huggingface/token": "hf_stored"}, False),
        ({"HF_HOME": "$HF_ROOT/elsewhere", "HF_ROOT": "HOME"}, {"elsewhere/token": "hf_stored"}, True),
        ({"XDG_CACHE_HOME": "HOME/caches"}, {"caches/huggingface/token": "hf_stored"}, True),
        ({"XDG_CACHE_HOME": "HOME/caches"}, {".cache/huggingface/token": "hf_stored"}, False),
        ({"HF_TOKEN_PATH": "HOME/secret"}, {"secret": "hf_stored"}, True),
        ({"HF_TOKEN_PATH": "HOME/secret", "HF_TOKEN": "hf_given"}, {"secret": "hf_stored"}, True),
    ],
)  # fmt: skip
def test_the_token_equals_that_of_huggingface_hub(
    variables: dict[str, str], files: dict[str, str], imported: bool, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    token = found(THEIRS, tmp_path, variables)
    assert found(FIND, tmp_path, variables) == f"{token} {imported}".strip()


WRITTEN = {
    "as it is": b"hf_stored",
    "a newline behind it": b"hf_stored\n",
    "a newline of Windows": b"hf_stored\r\n",
    "double quotes": b'"hf_stored"\n',
    "single quotes": b"'hf_stored'",
    "quotes and a space": b'" hf_stored " \n',
    "a byte order mark": b"\xef\xbb\xbfhf_stored\n",
    "a byte order mark and quotes": b'\xef\xbb\xbf"hf_stored"\n',
    "the header's word": b"Bearer hf_stored\n",
}


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "token"
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    return path


def fetched(origin: Origin, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    origin.add_repo("org/private", {"config.json": b"{}"}, private=True, readers=["hf_stored"])
    return run_fetcher("fetch", "hf://org/private", "--cache-dir", tmp_path / "cache", env={"HF_ENDPOINT": origin.endpoint})


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_quotes_spaces_and_prefixes_around_the_token_are_ignored(token_file: Path, tmp_path: Path, written: bytes) -> None:
    token_file.write_bytes(written)
    with Origin() as origin:
        done = fetched(origin, tmp_path)
        assert done.returncode == 0, done.stderr
        assert {request.token for request in origin.requests} == {"hf_stored"}


@pytest.mark.parametrize(
    "written",
    ["hf_stored".encode("utf-16"), b"hf_\xffstored", b"hf_\0stored", b"hf_st\x1bored", "hf_stor\u00e9d".encode(), b"hf stored"],
)
def test_an_invalid_token_is_refused_and_its_file_named(token_file: Path, tmp_path: Path, written: bytes) -> None:
    token_file.write_bytes(written)
    with Origin() as origin:
        done = fetched(origin, tmp_path)
        assert origin.requests == ()
    assert done.returncode == 78, done.stderr
    assert str(token_file) in done.stderr
    assert "stored" not in done.stderr.replace(str(token_file), "")


def test_a_directory_in_place_of_the_token_file_is_named(token_file: Path, tmp_path: Path) -> None:
    token_file.mkdir()
    with Origin() as origin:
        done = fetched(origin, tmp_path)
    assert done.returncode == 78, done.stderr
    assert f"the token file {token_file} is a directory" in done.stderr
