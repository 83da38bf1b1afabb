"""The address of a web page, and a repository without its scheme, are refused with the right URI."""

from __future__ import annotations

from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.errors import NotFound, UsageError
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.addresses import hub_address

MIRROR = {"HF_ENDPOINT": "http://mirror:8080/x"}
SETTINGS = Settings(cache_dir=Path("/nowhere"))


@pytest.mark.parametrize("environ", [{}, MIRROR], ids=["the Hub", "a mirror"])
@pytest.mark.parametrize(
    ("page", "meant"),
    [
        ("https://huggingface.co/org/model", "did you mean hf://org/model?"),
        ("https://huggingface.co/org/Qwen2.5-0.5B/", "did you mean hf://org/Qwen2.5-0.5B?"),
        ("https://www.huggingface.co/org/model?library=x#top", "did you mean hf://org/model?"),
        ("http://hf.co/org/model", "did you mean hf://org/model?"),
        ("https://huggingface.co/datasets/org/data", "did you mean hf://datasets/org/data?"),
        ("https://huggingface.co/org/model/tree/main", "did you mean hf://org/model@main?"),
        ("https://huggingface.co/org/model/tree/refs%2Fpr%2F1", "did you mean hf://org/model@refs/pr/1?"),
        ("https://huggingface.co/org/model/tree/v1/onnx", "hf://org/model@v1 with --include 'onnx/*'?"),
        ("https://huggingface.co/org/model/blob/main/a/b.bin", "https://huggingface.co/org/model/resolve/main/a/b.bin?"),
        ("https://huggingface.co/datasets/o/d/blob/main/f", "https://huggingface.co/datasets/o/d/resolve/main/f?"),
    ],
)
def test_a_web_page_of_the_hub_is_refused_with_the_right_uri(page: str, meant: str, environ: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        hub_address(ArtifactRef(page), environ)
    assert meant in caught.value.message


@pytest.mark.parametrize(
    ("page", "meant"),
    [
        ("http://mirror:8080/x/org/model", "did you mean hf://org/model?"),
        ("http://mirror:8080/x/org/model/tree/v1", "did you mean hf://org/model@v1?"),
        ("http://mirror:8080/x/org/model/blob/main/f.gguf", "http://mirror:8080/x/org/model/resolve/main/f.gguf?"),
    ],
)
def test_a_web_page_of_a_mirror_is_refused_with_the_right_uri(page: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        hub_address(ArtifactRef(page), MIRROR)
    assert meant in caught.value.message


@pytest.mark.parametrize(
    "uri",
    [
        "http://mirror:8080/x/bucket/model.gguf",
        "http://mirror:8080/x/bucket/model?version=3",
        "http://mirror:8080/org/model",
        "https://elsewhere.example/org/model",
        "https://elsewhere.example/org/model/blob/main/f",
        "https://huggingface.co/api/models",
        "https://huggingface.co/org/model/raw/main/config.json",
    ],
)
def test_an_address_that_may_be_a_file_is_accepted(uri: str) -> None:
    assert hub_address(ArtifactRef(uri), MIRROR) is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("org/model", "hf://org/model"),
        ("meta-llama/Llama-3.1-8B/", "hf://meta-llama/Llama-3.1-8B"),
        ("datasets/org/data", "hf://datasets/org/data"),
        ("models/org/model", "hf://org/model"),
        ("org/model@v1", "hf://org/model@v1"),
    ],
)
def test_a_repository_without_a_scheme_is_refused_with_the_right_uri(
    written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound) as caught:
        open_source(ArtifactRef(written), SETTINGS, {})
    assert caught.value.message.endswith(f"did you mean {meant}?")


def test_an_existing_path_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    open_source(ArtifactRef("org/model"), SETTINGS, {})
