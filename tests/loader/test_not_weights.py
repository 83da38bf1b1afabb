"""A file that is not weights is named by its kind, with a remedy, and is never warmed, copied or loaded."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest

from loader.checkpoint.index import read_checkpoint
from loader.copying.artifacts import read_artifact
from loader.errors import MalformedCheckpoint
from loader.residency.model_files import model_files
from tests.loader.making import gguf, shard

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4976698672\n"


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "a Git LFS pointer, .*git lfs pull"),
        (b"<!DOCTYPE html>\n<html><body>Log in</body></html>", "a web page"),
        (b"\xef\xbb\xbf\r\n <HTML>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
        (gguf({"a": 100}), "a GGUF file; rename it to .gguf"),
        (archive(), "a ZIP archive"),
        (pickle.dumps({"weight": [1.0] * 100}, protocol=2), "a Python pickle"),
        (pickle.dumps({"weight": [1.0] * 100}, protocol=4), "a Python pickle"),
        (json.dumps({"error": "Repository not found"}).encode(), "it is JSON"),
        (b'[\n  "not found"\n]', "it is JSON"),
        (gzip.compress(shard({"x": b"1"}), mtime=0), "compressed with gzip"),
    ],
)
def test_a_shard_of_another_kind_is_refused_by_its_kind(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for refuse in (read_checkpoint, lambda place: model_files([str(place)])):
        for place in (path, tmp_path):
            with pytest.raises(MalformedCheckpoint, match=words) as caught:
                refuse(place)
            assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["model.gguf", "pytorch_model.bin", "tokenizer.json", "model.safetensors.index.json"])
def test_a_pointer_is_refused_in_place_of_any_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    if not name.endswith((".gguf", ".bin")):
        (tmp_path / "model.safetensors").write_bytes(shard({"x": b"1"}))
    with pytest.raises(MalformedCheckpoint, match="a Git LFS pointer"):
        model_files([str(tmp_path)])
    with pytest.raises(MalformedCheckpoint, match="a Git LFS pointer"):
        read_artifact(tmp_path)


def test_a_web_page_is_refused_in_place_of_a_pytorch_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"<html>" + bytes(5000))
    with pytest.raises(MalformedCheckpoint, match="a web page"):
        model_files([str(tmp_path)])


def test_a_web_page_next_to_weights_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(shard({"x": b"1"}))
    (tmp_path / "README.html").write_bytes(b"<html>")
    assert len(model_files([str(tmp_path)])) == 2


def test_a_damaged_shard_keeps_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(MalformedCheckpoint, match="header length: "):
        read_checkpoint(tmp_path)
