"""Agents that are killed, that lose the API server, and that see intent go."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from fetcher.artifact import ArtifactRef
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.testing.origin import Origin
from tests.cluster.agent.cluster import Model, Node, Play
from tests.cluster.agent.link import linked
from tests.cluster.api import KUBECONFIG
from tests.lab.chaos import Chaos
from tests.lab.command import run_fetcher
from tests.lab.waiting import wait_until

MiB = 1024 * 1024


def published(origin: Origin, name: str, *sizes: int) -> dict[str, bytes]:
    files = {f"model-{number}.safetensors": os.urandom(size) for number, size in enumerate(sizes)}
    origin.add_repo(f"org/{name}", files)
    return files


class TestApiServer:
    async def test_an_agent_without_the_api_server_goes_on_and_catches_up(
        self, origin: Origin, play: Play, tmp_path: Path
    ) -> None:
        node, first, second = play.node("n"), published(origin, "a", 40 * MiB), published(origin, "b", 2 * MiB)
        a, b = await play.model("a", "hf://org/a"), await play.model("b", "hf://org/b")
        with linked(Path(str(KUBECONFIG)), tmp_path) as (link, kubeconfig):
            play.want(node, a.wanted("default"))
            origin.throttle(total=20 * MiB)
            node.start("--kubeconfig", str(kubeconfig))
            node.becomes(a, "Fetching")
            link.cut()
            play.want(node, a.wanted("default"), b.wanted("default"))
            wait_until(lambda: node.path(a).exists() and node.contents(a) == first, "the fetch goes on without it", timeout=90)
            origin.throttle()
            assert node.phase(a) == "Fetching"  # the last that could be said
            link.mend()
            node.becomes(a, "Ready", timeout=90)
            node.becomes(b, "Ready", timeout=90)
            assert node.contents(b) == second
            assert node.stop()[0] == 0


class TestIntent:
    async def test_a_model_that_is_no_longer_wanted_keeps_its_bytes_until_its_grace_is_over(
        self, origin: Origin, play: Play
    ) -> None:
        node = play.node("n")
        published(origin, "a", 2 * MiB)
        kept = published(origin, "b", 2 * MiB)
        a, b = await play.model("a", "hf://org/a"), await play.model("b", "hf://org/b")
        play.want(node, b.wanted("default"))
        node.start("--orphan-grace", "1s")
        node.becomes(b, "Ready")
        node.kill()
        node.start("--orphan-grace", "1s")  # it adopts b, and so b is nobody's orphan
        play.want(node, a.wanted("default"), b.wanted("default"))
        node.becomes(a, "Ready")
        node.becomes(b, "Ready")
        play.want(node)
        node.surveys()
        assert node.path(a).exists()
        wait_until(lambda: not node.path(a).exists(), "it is removed after two looks", timeout=90)
        assert node.contents(b) == kept

    async def test_what_a_pod_fetched_is_never_removed(self, origin: Origin, play: Play) -> None:
        node = play.node("n")
        files = published(origin, "a", 2 * MiB)
        a = await play.model("a", "hf://org/a")
        fetch_as_a_pod(node, a, origin)
        play.want(node, a.wanted("default"))
        origin.clear_requests()
        node.start("--orphan-grace", "0s")
        node.becomes(a, "Ready")
        assert not origin.requests
        assert node.contents(a) == files


def fetch_as_a_pod(node: Node, model: Model, origin: Origin) -> None:
    done = run_fetcher("fetch", model.ref.uri, "--cache-dir", node.root, env={"HF_ENDPOINT": origin.endpoint})
    assert done.returncode == 0, done.stderr


class TestKills:
    async def test_agents_killed_at_random_end_with_every_byte(self, origin: Origin, play: Play, chaos: Chaos) -> None:
        node = play.node("n")
        files: dict[str, Any] = {}
        models = []
        for name in "abc":
            files[name] = published(origin, name, 20 * MiB, 3 * MiB)
            models.append(await play.model(name, f"hf://org/{name}"))
        play.want(node, *(each.wanted("default") for each in models))
        origin.throttle(total=60 * MiB)
        for _ in chaos.rounds(ordinarily=8):
            node.start()
            done = node.metric("fetched_bytes_total")
            goal = chaos.random.uniform(0.0, 15 * MiB)
            wait_until(
                lambda done=done, goal=goal: (
                    node.metric("fetched_bytes_total") >= done + goal  # type: ignore[misc]
                    or all(node.path(each).exists() for each in models)
                ),
                "some bytes are fetched",
                timeout=40,
            )
            node.kill()
            for name, model in zip("abc", models, strict=True):
                if node.path(model).exists() and node.phase(model) == "Ready":
                    assert node.contents(model) == files[name]
        origin.throttle()
        node.start()
        for name, model in zip("abc", models, strict=True):
            node.becomes(model, "Ready", timeout=90)
            assert node.contents(model) == files[name]
        wait_until(lambda: not list((node.root / ".fetcher" / "staging").iterdir()), "nothing is left behind")


def copies(node: Node, model: Model, count: int) -> list[ArtifactRef]:
    """Artifacts as if the same files had been fetched by other selections. Return what was asked for."""
    there = node.path(model)
    manifest = Manifest.read(there / RELATIVE_PATH)
    assert manifest is not None
    refs = [replace(model.ref, exclude=(f"none-{number}",)) for number in range(count)]
    for ref in refs:
        shutil.copytree(there, node.root / ref.key, ignore=shutil.ignore_patterns("summary.json"))
        own = replace(manifest, fingerprint=ref.fingerprint, exclude=ref.exclude)
        (node.root / ref.key / RELATIVE_PATH).write_bytes(own.to_bytes())
    return refs


class TestIdle:
    async def test_an_idle_agent_with_200_artifacts_takes_less_than_100_MiB_and_writes_once(
        self, origin: Origin, play: Play
    ) -> None:
        node = play.node("n")
        origin.add_repo("org/m", {f"model-{number}.safetensors": bytes(1000) for number in range(3)})
        model = await play.model("m", "hf://org/m")
        fetch_as_a_pod(node, model, origin)
        entries = [replace(model, ref=ref).wanted("default") for ref in copies(node, model, 200)]
        play.want(node, *entries)
        node.start()
        wait_until(
            lambda: [each.phase for each in node.status.artifacts.values()] == ["Ready"] * 200, "all are adopted", timeout=90
        )
        node.surveys()
        assert node.process is not None
        assert psutil.Process(node.process.pid).memory_info().rss < 100 * MiB
        assert node.metric("status_writes_total") <= 2
        assert node.metric("fetched_bytes_total") == 0
