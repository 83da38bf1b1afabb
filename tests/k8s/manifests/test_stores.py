"""The components for stores: least privilege in every overlay, and a model fetched from a real store with each Secret."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import utils as kubernetes

from tests.k8s.manifests.rendering import (
    K8S,
    STORES,
    Resource,
    containers,
    named,
    pod_spec,
    render,
    template_of,
    workloads,
)

COMPONENTS = tuple(path.name for path in STORES)
OVERLAYS = ("hydrate", "init-container", "no-fsgroup", "node-cache", "shared-cache")
IDENTITIES = {
    "aws-irsa": "sts.amazonaws.com",
    "aws-pod-identity": "pods.eks.amazonaws.com",
    "azure-workload-identity": "api://AzureADTokenExchange",
    "gke-workload-identity": None,
}
"""The audience of the projected token, None without one."""


def combined(directory: Path, overlay: str, *components: str) -> tuple[Resource, ...]:
    """Render an overlay with components, as a user's kustomization does."""
    (directory / "k8s").symlink_to(K8S)
    kustomization = {
        "resources": [f"k8s/overlays/{overlay}"],
        "components": [f"k8s/components/{component}" for component in components],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(directory)


def fetching(resources: tuple[Resource, ...]) -> list[Resource]:
    """Return the workloads that fetch from the source."""
    return [each for each in workloads(resources) if "fetcher" in each["metadata"]["labels"]]


def names_and_mounts(container: Resource) -> set[str]:
    """Return the variables and the mounts of a container, without those of the model."""
    variables = {each["name"] for each in container.get("env", [])}
    return variables | {each["mountPath"] for each in container["volumeMounts"]}


class TestLeastPrivilege:
    @pytest.mark.parametrize(("overlay", "component"), list(product(OVERLAYS, COMPONENTS)))
    def test_only_the_container_that_fetches_gets_what_a_component_adds(
        self, tmp_path: Path, overlay: str, component: str
    ) -> None:
        before = {each["metadata"]["name"]: each for each in workloads(render(K8S / "overlays" / overlay))}
        resources = combined(tmp_path, overlay, component)

        assert fetching(resources)
        for resource in resources:
            kubernetes.validate(resource, kubernetes.latest_version(), strict=True)
        for workload in workloads(resources):
            former = {each["name"]: each for each in containers(pod_spec(before[workload["metadata"]["name"]]))}
            changed = {
                each["name"]
                for each in containers(pod_spec(workload))
                if names_and_mounts(each) != names_and_mounts(former[each["name"]])
            }
            assert changed == ({"fetch"} if workload in fetching(resources) else set())

    @pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
    def test_what_is_mounted_is_read_only_and_the_arguments_are_unchanged(self, store: Path) -> None:
        plain = render(K8S / "overlays" / "shared-volume")
        for workload in fetching(render(store)):
            for container in containers(pod_spec(workload)):
                added = [each for each in container["volumeMounts"] if each["mountPath"].startswith("/etc/weightlift/")]
                assert all(each["readOnly"] for each in added)
            former = named(plain, workload["kind"], workload["metadata"]["name"])
            assert [each.get("args") for each in containers(pod_spec(workload))] == [
                each.get("args") for each in containers(pod_spec(former))
            ]

    @pytest.mark.parametrize("component", IDENTITIES)
    def test_an_identity_has_an_account_whose_token_is_for_its_cloud_alone(self, component: str) -> None:
        resources = render(K8S / "stores" / component)
        assert named(resources, "ServiceAccount", "weightlift")["automountServiceAccountToken"] is False
        for workload in fetching(resources):
            spec = pod_spec(workload)
            assert spec["serviceAccountName"] == "weightlift"
            audiences = [
                source["serviceAccountToken"]["audience"]
                for volume in spec["volumes"]
                for source in volume.get("projected", {}).get("sources", [])
            ]
            assert audiences == [audience for audience in [IDENTITIES[component]] if audience]

    @pytest.mark.parametrize("component", sorted(set(COMPONENTS) - set(IDENTITIES)))
    def test_a_secret_needs_no_account(self, component: str) -> None:
        resources = render(K8S / "stores" / component)
        assert "ServiceAccount" not in {each["kind"] for each in resources}
        assert all("serviceAccountName" not in pod_spec(each) for each in workloads(resources))

    def test_the_webhook_of_eks_skips_every_container(self, tmp_path: Path) -> None:
        for workload in fetching(combined(tmp_path, "no-fsgroup", "aws-pod-identity")):
            skipped = template_of(workload)["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"].split(",")
            assert {each["name"] for each in containers(pod_spec(workload))} <= set(skipped)

    @pytest.mark.parametrize(
        ("component", "hosts"),
        [
            ("aws-pod-identity", ["169.254.170.23/32", "fd00:ec2::23/128"]),
            ("gke-workload-identity", ["169.254.169.254/32", "169.254.169.252/32"]),
            ("aws-irsa", []),
        ],
    )
    def test_network_policies_let_an_identity_reach_its_service(self, tmp_path: Path, component: str, hosts: list[str]) -> None:
        resources = combined(tmp_path, "shared-volume", "network-policy", component)
        egress = named(resources, "NetworkPolicy", "weightlift-source")["spec"]["egress"]
        assert [rule["to"][0]["ipBlock"]["cidr"] for rule in egress[2:]] == hosts
