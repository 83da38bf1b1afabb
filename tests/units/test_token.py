"""The Hub's token is found where huggingface_hub finds it, also where that package need not be imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_it_is_theirs(variables: dict[str, str], files: dict[str, str], imported: bool, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    token = found(THEIRS, tmp_path, variables)
    assert found(FIND, tmp_path, variables) == f"{token} {imported}".strip()
