"""An nginx as the page on mirrors sets it up: it caches slices of a Hub, and follows its redirects to the CDN."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.command import run_fetcher
from tests.lab.fixtures import StartNginx
from tests.lab.nginx import Behaviour

MiB = 1 << 20
FILES = {"config.json": b'{"a": 1}', "model.safetensors": random_bytes("mirror", 33 * MiB + 5)}
PAGE = Path(__file__).parents[2] / "docs" / "mirrors.md"


def documented(endpoint: str) -> Behaviour:
    """The set-up of the page, in front of `endpoint`."""
    (block,) = re.findall(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    text = block.replace("https://huggingface.co", endpoint).replace("/var/cache/nginx", "WORKSPACE/cache")
    above, _, server = text.partition("server {")
    plain, _, follow = server.partition("location @follow {")
    lines = plain.partition("location / {")[2].strip().removesuffix("}").strip().splitlines()
    return Behaviour(
        lines=tuple(line.strip() for line in lines),
        aside="location @follow {" + follow.rstrip().removesuffix("}"),
        above=above,
    )


def fetched(cache_dir: Path, mirror: str) -> dict[str, Any]:
    done = run_fetcher("fetch", "hf://org/model", "--cache-dir", cache_dir, "--mirror", mirror, "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert {name: (Path(result["path"]) / name).read_bytes() for name in FILES} == FILES
    return result


def test_the_documented_cache_brings_all_bytes_and_asks_the_origin_once(
    nginx: StartNginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Origin(lfs_threshold=MiB) as hub:
        hub.add_repo("org/model", FILES)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        mirror = nginx(tmp_path, documented(hub.endpoint)).url + "/{path}"
        first = fetched(tmp_path / "first", mirror)
        assert first["bytes_from"] == {mirror: sum(map(len, FILES.values()))}
        hub.clear_requests()
        second = fetched(tmp_path / "second", mirror)
        assert second["bytes_from"] == first["bytes_from"]
        assert [request.path for request in hub.requests if "/api/" not in request.path] == []
