"""`k8s/integrations/flexinfer`, run in the order in which a Model's life has it."""

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
        assert pod.started, pod.said
        assert pod.exit_codes() == {"fetch": 0, "mark": 0}
    return node.disks.claim("llama-cache") / "llama"


class TestPrefetch:
    def test_the_model_lies_under_its_name_and_the_marker_goes_with_the_manifest(
        self, prefetched: Path, published: Mapping[str, str]
    ) -> None:
        assert {path.name for path in prefetched.iterdir()} == {*published, ".fetcher", MARKER}
        assert '"uri": "hf://org/model"' in (prefetched / MARKER).read_text()

        (prefetched / ".fetcher" / "manifest.json").unlink()

        assert not (prefetched / MARKER).exists()

    def test_nothing_is_marked_where_the_model_could_not_be_had(self, node: Node, resources: tuple[Resource, ...]) -> None:
        node.disks.claim("llama-cache").joinpath("llama").write_text("a file in the way")

        with node.playing(named(resources, "Job", "llama-prefetch"), resources) as pod:
            assert not pod.started
            assert pod.container("fetch").wait() == 73
            assert pod.container("mark").logs() == ""

        assert not list(node.disks.claim("llama-cache").rglob(MARKER))


@pytest.fixture
def standing(node: Node, origin: Origin) -> Path:
    """The directory of a model that somebody fetched onto the claim of a pvc:// source."""
    directory = node.disks.claim("shared-models") / "llama"
    run_fetcher("fetch", "hf://org/model", "--dest", directory, env={"HF_ENDPOINT": origin.endpoint})
    return directory


class TestVerify:
    def test_what_stands_on_the_claim_is_as_it_was_fetched(
        self, node: Node, resources: tuple[Resource, ...], standing: Path
    ) -> None:
        with node.playing(named(resources, "Job", "llama-verify"), resources) as pod:
            assert pod.exit_codes() == {"verify": 0}

    def test_a_changed_byte_is_found_and_its_file_named(
        self, node: Node, resources: tuple[Resource, ...], standing: Path
    ) -> None:
        damage(standing / SHARD)

        with node.playing(named(resources, "Job", "llama-verify"), resources) as pod:
            assert pod.exit_codes() == {"verify": 65}
            assert SHARD in pod.container("verify").logs().splitlines()[-1]


class TestFlashLoader:
    def test_the_engine_reads_from_memory_what_was_prefetched_and_nothing_that_was_damaged_since(
        self, node: Node, resources: tuple[Resource, ...], prefetched: Path, published: Mapping[str, str]
    ) -> None:
        engine = named(resources, "Deployment", "llama")
        with node.playing(engine, resources) as pod:
            assert pod.started, pod.said
            found = pod.report()

        assert found["files"] == published
        assert (found["path"], found["writable"]) == ("/flash/llama", False)

        damage(prefetched / SHARD)

        with node.playing(engine, resources) as pod:
            assert not pod.started
            assert pod.container("flash-loader").wait() == 65
            assert pod.container("engine").logs() == ""
