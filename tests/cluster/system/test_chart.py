"""The Helm chart: the same resources as the kustomizations, with values."""

from __future__ import annotations

import importlib.util
import subprocess
from typing import Any

import pytest
import yaml

from tests.k8s.manifests.rendering import K8S, Resource, render
from tests.lab.availability import program

SYSTEM = K8S / "system"


def helm(*words: str) -> list[Resource]:
    """Return the resources of the chart, rendered by Helm itself. Raises AssertionError if it fails."""
    command = [program("helm", package="helm"), "template", "weightlift", str(SYSTEM / "chart"), "--include-crds", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def by_name(resources: Any) -> dict[tuple[str, str], Resource]:
    """Return resources by kind and name, without the Namespace, which Helm makes itself."""
    return {(each["kind"], each["metadata"]["name"]): each for each in resources if each["kind"] != "Namespace"}


class TestChart:
    def test_is_current(self) -> None:
        """`python k8s/system/chart.py` writes it."""
        spec = importlib.util.spec_from_file_location("chart", SYSTEM / "chart.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        written = {
            path.relative_to(SYSTEM / "chart"): path.read_text() for path in (SYSTEM / "chart").rglob("*") if path.is_file()
        }

        assert written == module.chart()

    @pytest.mark.parametrize(
        ("directory", "words"),
        [
            ("base", ()),
            ("overlays/unbound-agents", ("--set=allowUnboundAgents=true",)),
            ("overlays/node-labels", ("--set=nodeLabels=true",)),
        ],
        ids=["by default", "with unbound agents", "with node labels"],
    )
    def test_is_what_the_kustomization_is(self, directory: str, words: tuple[str, ...]) -> None:
        assert by_name(helm("--namespace=weightlift-system", *words)) == by_name(render(SYSTEM / directory))

    def test_runs_the_image_of_its_values_everywhere(self) -> None:
        text = yaml.safe_dump_all(helm("--set=image=registry.example/own:2"))

        assert text.count("registry.example/own:2") == 2
        assert "example.com/weightlift:" not in text

    def test_has_as_many_controllers_as_its_values_say(self) -> None:
        deployment = by_name(helm("--set=replicas=3"))["Deployment", "weightlift-controller"]

        assert deployment["spec"]["replicas"] == 3

    def test_runs_in_another_namespace_as_a_whole(self) -> None:
        assert "weightlift-system" not in yaml.safe_dump_all(helm("--namespace=other"))
