"""`k8s/integrations/flexinfer`: prefetch, verify and flash-loader run as for a Model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fetcher.testing.origin import Origin
from tests.k8s.manifests.conftest import SHARD, damage
from tests.k8s.manifests.playing import Node
from tests.k8s.manifests.rendering import K8S, Resource, named, render
from tests.lab.command import run_fetcher

MARKER = ".flexinfer_cached"


@pytest.fixture
def resources() -> tuple[Resource, ...]:
    return render(K8S / "integrations" / "flexinfer")


@pytest.fixture
def prefetched(node: Node, resources: tuple[Resource, ...]) -> Path:
    """The directory of the model on its claim, after the prefetch Job."""
    with node.playing(named(resources, "Job", "llama-prefetch"), resources) as pod:
        assert pod.started, pod.output
        assert pod.exit_codes() == {"fetch": 0, "mark": 0}
    return node.disks.claim("llama-cache") / "llama"


class TestPrefetch:
    def test_the_model_is_under_its_name_and_the_marker_follows_the_manifest(
        self, prefetched: Path, published: Mapping[str, str]
    ) -> None:
        assert {path.name for path in prefetched.iterdir()} == {*published, ".fetcher", MARKER}
        assert '"uri": "hf://org/model"' in (prefetched / MARKER).read_text()

        (prefetched / ".fetcher" / "manifest.json").unlink()

        assert not (prefetched / MARKER).exists()

    def test_a_failed_prefetch_creates_no_marker(self, node: Node, resources: tuple[Resource, ...]) -> None:
        node.disks.claim("llama-cache").joinpath("llama").write_text("a file in the way")

        with node.playing(named(resources, "Job", "llama-prefetch"), resources) as pod:
            assert not pod.started
            assert pod.container("fetch").wait() == 73
            assert pod.container("mark").logs() == ""

        assert not list(node.disks.claim("llama-cache").rglob(MARKER))


@pytest.fixture
def existing(node: Node, origin: Origin) -> Path:
    """The directory of a model that was fetched to the claim of a pvc:// source."""
    directory = node.disks.claim("shared-models") / "llama"
    run_fetcher("fetch", "hf://org/model", "--dest", directory, env={"HF_ENDPOINT": origin.endpoint})
    return directory


class TestVerify:
    def test_an_unchanged_model_is_verified(self, node: Node, resources: tuple[Resource, ...], existing: Path) -> None:
        with node.playing(named(resources, "Job", "llama-verify"), resources) as pod:
            assert pod.exit_codes() == {"verify": 0}

    def test_a_changed_byte_fails_with_the_name_of_its_file(
        self, node: Node, resources: tuple[Resource, ...], existing: Path
    ) -> None:
        damage(existing / SHARD)

        with node.playing(named(resources, "Job", "llama-verify"), resources) as pod:
            assert pod.exit_codes() == {"verify": 65}
            assert SHARD in pod.container("verify").logs().splitlines()[-1]


class TestFlashLoader:
    def test_the_engine_reads_the_prefetched_model_from_memory_unless_it_is_damaged(
        self, node: Node, resources: tuple[Resource, ...], prefetched: Path, published: Mapping[str, str]
    ) -> None:
        engine = named(resources, "Deployment", "llama")
        with node.playing(engine, resources) as pod:
            assert pod.started, pod.output
            report = pod.report()

        assert report["files"] == published
        assert (report["path"], report["writable"]) == ("/flash/llama", False)

        damage(prefetched / SHARD)

        with node.playing(engine, resources) as pod:
            assert not pod.started
            assert pod.container("flash-loader").wait() == 65
            assert pod.container("engine").logs() == ""
