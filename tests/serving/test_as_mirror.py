"""A fetch with a `fetcher serve` of another node as its mirror: two caches, two commands, one Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.command import end, run_fetcher, started_fetcher

MiB = 1024 * 1024
FILES = {"config.json": b"{}", "model.safetensors": random_bytes("served", 17 * MiB + 5), "sub dir/näme": b"name"}
TOTAL = sum(map(len, FILES.values()))
URI = "hf://org/model"


class Nodes:
    """A Hub, a node that has fetched its model and serves it at `mirror` to who knows `secret`, and the root of another one."""

    def __init__(self, place: Path, hub: Origin, stack: ExitStack) -> None:
        self.hub, self.place = hub, place
        self.secret = place / "secret"
        self.secret.write_text("a secret of the peers\n".replace(" ", "-"))
        self.fetch(place / "first")
        served = started_fetcher(
            "serve", "--cache-dir", place / "first", "--listen", "127.0.0.1:0", "--auth-secret-file", self.secret
        )
        stack.callback(end, served)
        assert served.stdout is not None
        self.mirror = served.stdout.readline().strip()

    def fetch(self, root: Path, *options: str | Path) -> tuple[dict[str, Any], str]:
        """Returns the result, and what was logged."""
        self.hub.clear_requests()
        words = ("--cache-dir", root, "--json", "--progress", "log", *options)
        done = run_fetcher("fetch", URI, *words, env={"HF_ENDPOINT": self.hub.endpoint})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    @property
    def mirrored(self) -> tuple[str | Path, ...]:
        return ("--mirror", self.mirror, "--mirror-secret-file", self.secret)

    def asked_for_content(self) -> list[str]:
        return [request.path for request in self.hub.requests if "/api/" not in request.path]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with Origin(lfs_threshold=MiB) as hub, ExitStack() as stack:
        hub.add_repo("org/model", FILES)
        yield Nodes(tmp_path_factory.mktemp("nodes"), hub, stack)


def test_a_node_brings_what_it_has_and_the_origin_sends_only_the_listing(nodes: Nodes, tmp_path: Path) -> None:
    planned = run_fetcher("plan", URI, "--cache-dir", tmp_path, *nodes.mirrored, env={"HF_ENDPOINT": nodes.hub.endpoint})
    assert f"may come from {nodes.mirror}; the rest from the origin" in planned.stdout
    result, logged = nodes.fetch(tmp_path, *nodes.mirrored)
    assert {name: (Path(result["path"]) / name).read_bytes() for name in FILES} == FILES
    assert (result["bytes_from"], result["verified"]) == ({nodes.mirror: TOTAL}, True)
    assert nodes.asked_for_content() == []
    assert re.search(rf"MiB fetched \(.* from {re.escape(nodes.mirror)}\)", logged)


def test_a_node_that_refuses_is_named_and_the_origin_brings_all(nodes: Nodes, tmp_path: Path) -> None:
    result, logged = nodes.fetch(tmp_path, "--mirror", nodes.mirror)
    assert result["bytes_from"] == {"origin": TOTAL}
    assert f"MirrorFailed: {nodes.mirror}: " in logged
    assert "401" in logged
    assert nodes.secret.read_text().strip() not in logged


def test_a_selection_that_the_node_does_not_have_comes_from_the_origin(nodes: Nodes, tmp_path: Path) -> None:
    result, _ = nodes.fetch(tmp_path, *nodes.mirrored, "--include", "*.safetensors")
    assert result["bytes_from"] == {"origin": len(FILES["model.safetensors"])}


def test_a_damaged_copy_on_the_node_harms_nothing_and_the_node_is_banned(nodes: Nodes, tmp_path: Path) -> None:
    (weights,) = (nodes.place / "first").rglob("model.safetensors")
    right = FILES["model.safetensors"][5]
    with weights.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), bytes([right ^ 1]), 5)
        result, logged = nodes.fetch(tmp_path, *nodes.mirrored)
        os.pwrite(file.fileno(), bytes([right]), 5)
    assert (Path(result["path"]) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert f"warning: MirrorBanned: {nodes.mirror} sent other bytes of model.safetensors" in logged
