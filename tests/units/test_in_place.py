"""In place, what an engine takes for a complete model becomes visible last, whatever directory it is in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.store.in_place import rank

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
def test_each_file_has_its_turn(path: str, expected: int) -> None:
    assert rank(path) == expected


@settings(max_examples=30)
@given(st.lists(st.text("ab.-", min_size=1, max_size=5), max_size=3), st.sampled_from(["safetensors", "bin", "gguf", "pt"]))
def test_weights_come_before_what_announces_them_in_every_directory(directories: list[str], extension: str) -> None:
    within = "".join(f"{directory}/" for directory in directories)
    names = (f"weights.{extension}", "notes.txt", f"weights.{extension}.index.json", "config.json")
    assert [rank(within + name) for name in names] == [WEIGHTS, ALL_ELSE, INDEXES, ANNOUNCEMENTS]
