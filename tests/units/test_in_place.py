"""In place, the files by which an engine recognizes a complete model become visible last, in any directory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.store.in_place import publish_order

WEIGHTS, ALL_ELSE, INDEXES, ANNOUNCEMENTS = range(4)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model-00001-of-00004.safetensors", WEIGHTS),
        ("pytorch_model.bin", WEIGHTS),
        ("consolidated.00.pth", WEIGHTS),
        ("Qwen3-14B-Q4_K_M.gguf", WEIGHTS),
        ("onnx/model.onnx", WEIGHTS),
        ("tokenizer.json", ALL_ELSE),
        ("tokenizer_config.json", ALL_ELSE),
        ("generation_config.json", ALL_ELSE),
        ("config.json.md", ALL_ELSE),
        ("config.json/notes.txt", ALL_ELSE),
        ("README.md", ALL_ELSE),
        ("model.safetensors.index.json", INDEXES),
        ("pytorch_model.bin.index.json", INDEXES),
        ("config.json", ANNOUNCEMENTS),
        ("model_index.json", ANNOUNCEMENTS),
        ("params.json", ANNOUNCEMENTS),
    ],
)
def test_each_file_has_its_place_in_the_order(path: str, expected: int) -> None:
    assert publish_order(path) == expected


@settings(max_examples=30)
@given(st.lists(st.text("ab.-", min_size=1, max_size=5), max_size=3), st.sampled_from(["safetensors", "bin", "gguf", "pt"]))
def test_weights_are_placed_before_their_index_and_configuration(directories: list[str], extension: str) -> None:
    within = "".join(f"{directory}/" for directory in directories)
    names = (f"weights.{extension}", "notes.txt", f"weights.{extension}.index.json", "config.json")
    assert [publish_order(within + name) for name in names] == [WEIGHTS, ALL_ELSE, INDEXES, ANNOUNCEMENTS]
