"""`k8s/integrations/llmkube`: the Job stages a file that LLMKube's own downloader finds."""

from __future__ import annotations

from dataclasses import replace

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.k8s.manifests.conftest import MiB
from tests.k8s.manifests.playing import Node
from tests.k8s.manifests.rendering import K8S, named, pod_spec, render

WEIGHTS = random_bytes("gguf", 5 * MiB)


def test_the_job_places_the_file_where_the_models_server_expects_it(node: Node, origin: Origin) -> None:
    resources = render(K8S / "integrations" / "llmkube")
    job = named(resources, "Job", "stage-model")
    variables = {each["name"]: each["value"] for each in pod_spec(job)["containers"][0]["env"]}
    repository, _, file = variables["MODEL_SOURCE"].removeprefix("https://huggingface.co/").partition("/resolve/main/")
    origin.add_repo(repository, {file: WEIGHTS})
    addresses = {variables["MODEL_SOURCE"]: f"{origin.endpoint}/{repository}/resolve/main/{file}"}

    with replace(node, instead={**node.instead, **addresses}).playing(job, resources) as pod:
        assert pod.started, pod.output
        assert pod.exit_codes() == {"model-downloader": 0}

    claim = node.disks.claim("llmkube-model-cache")
    assert (claim / variables["MODEL_PATH"].removeprefix("/models/")).read_bytes() == WEIGHTS
