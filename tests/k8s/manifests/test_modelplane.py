"""`k8s/integrations/modelplane`: the Job hydrates once, and again after a change of the revision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fetcher.testing.origin import Origin
from tests.k8s.manifests.conftest import SHARD
from tests.k8s.manifests.playing import Node
from tests.k8s.manifests.rendering import K8S, Resource, named, pod_spec, render

MARKER = ".modelplane-hydrated"


@pytest.fixture
def artifact(node: Node) -> Path:
    return node.disks.claim("artifact")


def hydrated(node: Node, *, revision: str = "main") -> dict[str, int]:
    """Run the Job with a revision and return its exit codes."""
    resources = render(K8S / "integrations" / "modelplane")
    job = named(resources, "Job", "hydrate")
    variables: list[Resource] = pod_spec(job)["initContainers"][0]["env"]
    next(each for each in variables if each["name"] == "REVISION")["value"] = revision
    with node.playing(job, resources) as pod:
        assert pod.started, pod.output
        return pod.exit_codes()


def marked(artifact: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((artifact / MARKER).read_text())
    return record


class TestHydration:
    def test_a_revision_is_hydrated_flat_with_a_marker_and_then_cached(
        self, node: Node, artifact: Path, origin: Origin, published: Mapping[str, str]
    ) -> None:
        assert hydrated(node) == {"fetch": 0, "mark": 0}

        before = marked(artifact)
        assert {path.name for path in artifact.iterdir()} == {*published, ".fetcher", MARKER}
        assert (before["uri"], before["requested_revision"]) == ("hf://org/model", "main")
        origin.clear_requests()

        assert hydrated(node) == {"fetch": 0, "mark": 0}

        assert origin.requests == ()
        assert marked(artifact) == before

    def test_another_revision_is_hydrated_and_recorded(
        self, node: Node, artifact: Path, origin: Origin, model: Mapping[str, Path]
    ) -> None:
        hydrated(node)
        changed = b"another" + model[SHARD].read_bytes()[7:]
        repository = origin.add_repo("org/model", model)
        commit = origin.update_repo(repository, {**model, SHARD: changed}, revision="v2")

        assert hydrated(node, revision="v2") == {"fetch": 0, "mark": 0}

        assert (artifact / SHARD).read_bytes() == changed
        assert (marked(artifact)["requested_revision"], marked(artifact)["revision"]) == ("v2", commit)
