"""Static checks of the manifests: schemas, privileges, exit codes that end a Job, memory sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes_validate import utils as kubernetes

import loader.errors
from fetcher.artifact import ArtifactRef
from fetcher.errors import FetchError
from fetcher.quantities import parse_size
from tests.k8s.manifests.rendering import (
    INTEGRATIONS,
    K8S,
    OVERLAYS,
    STORES,
    Resource,
    containers,
    every_workload,
    job_spec,
    named,
    pod_spec,
    render,
    template_of,
    workloads,
)

GiB = 1024**3
PAGE = K8S.parent / "docs" / "kubernetes.md"
DIRECTORIES = [*OVERLAYS, *STORES, *INTEGRATIONS]
OLDEST = "1.31"
"""The first version with a stable podFailurePolicy."""
NEWEST = kubernetes.latest_version()


def name_of(directory: Path) -> str:
    return directory.name


class TestSchemas:
    @pytest.mark.parametrize("version", [OLDEST, NEWEST])
    def test_every_resource_is_valid_and_has_no_unknown_field(self, version: str) -> None:
        distinct = {json.dumps(resource): resource for directory in DIRECTORIES for resource in render(directory)}

        for resource in distinct.values():
            kubernetes.validate(resource, version, strict=True)

    @pytest.mark.parametrize("version", [OLDEST, NEWEST])
    def test_a_misspelled_field_is_detected(self, version: str) -> None:
        job = named(render(K8S / "overlays" / "shared-volume"), "Job", "prefetch")
        pod_spec(job)["containers"][0]["securityContext"]["readonlyRootFilesystem"] = True

        with pytest.raises(kubernetes.ValidationError, match="readonlyRootFilesystem"):
            kubernetes.validate(job, version, strict=True)

    @pytest.mark.parametrize("directory", DIRECTORIES, ids=name_of)
    def test_resources_of_a_kind_have_different_names(self, directory: Path) -> None:
        names = [(each["kind"], each["metadata"]["name"]) for each in render(directory)]

        assert len(names) == len(set(names))

    @pytest.mark.parametrize("directory", DIRECTORIES, ids=name_of)
    def test_a_pod_mounts_exactly_its_volumes(self, directory: Path) -> None:
        for spec in map(pod_spec, workloads(render(directory))):
            volumes = {volume["name"] for volume in spec["volumes"]}
            mounted = {mount["name"] for container in containers(spec) for mount in container["volumeMounts"]}

            assert mounted == volumes

    def test_a_volume_has_one_source(self) -> None:
        for name, workload in every_workload():
            for volume in pod_spec(workload)["volumes"]:
                assert len(set(volume) - {"name"}) == 1, f"{name}: {volume}"

    @pytest.mark.parametrize("overlay", OVERLAYS, ids=name_of)
    def test_the_fetcher_label_tells_which_container_fetches(self, overlay: Path) -> None:
        for workload in workloads(render(overlay)):
            labels = workload["metadata"]["labels"]

            assert labels.get("fetcher") == fetching_container(pod_spec(workload))
            assert template_of(workload)["metadata"]["labels"] == labels

    def test_every_manifest_belongs_to_a_kustomization(self) -> None:
        for directory in {path.parent for path in K8S.rglob("*.yaml") if path.is_relative_to(K8S / "base")}:
            listed = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]

            assert sorted(listed) == sorted(path.name for path in directory.glob("*.yaml") if path.name != "kustomization.yaml")

    def test_every_component_is_used_by_an_overlay(self) -> None:
        used = {
            Path(component).name
            for overlay in (*OVERLAYS, *STORES)
            for component in yaml.safe_load((overlay / "kustomization.yaml").read_text()).get("components", [])
        }

        assert used | CHOSEN_BY_USERS == {path.parent.name for path in K8S.glob("components/*/kustomization.yaml")}

    def test_the_certificate_for_peers_is_the_one_that_their_overlay_mounts(self, tmp_path: Path) -> None:
        """Another way to make its Secret than cert-manager is as good, so the overlay is without."""
        (tmp_path / "weightlift").symlink_to(K8S.parent)
        places = {"resources": ["weightlift/k8s/overlays/peers"], "components": ["weightlift/k8s/components/peer-certificates"]}
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(places))

        resources = render(tmp_path)

        certificate = named(resources, "Certificate", "weightlift-peers")["spec"]
        for workload in workloads(resources):
            secrets = [volume["secret"] for volume in pod_spec(workload)["volumes"] if "secret" in volume]
            assert [each["secretName"] for each in secrets] == [certificate["secretName"]]
        (fetch,) = pod_spec(named(resources, "Deployment", "engine"))["initContainers"]
        mirror = urlsplit(fetch["args"][fetch["args"].index("--mirror") + 1])
        assert certificate["dnsNames"] == [mirror.hostname] == [named(resources, "Service", "peers")["metadata"]["name"]]
        assert {"server auth", "client auth"} <= set(certificate["usages"])
        issuer = named(resources, "Issuer", certificate["issuerRef"]["name"])["spec"]["ca"]["secretName"]
        assert named(resources, "Certificate", "weightlift-peers-authority")["spec"]["secretName"] == issuer

    @pytest.mark.parametrize("overlay", [*OVERLAYS, *STORES], ids=name_of)
    def test_the_model_key_belongs_to_the_model_uri(self, overlay: Path) -> None:
        model = named(render(overlay), "ConfigMap", "model")["data"]

        assert model["MODEL_KEY"] == ArtifactRef(model["MODEL_URI"]).key

    @pytest.mark.parametrize("overlay", [*OVERLAYS, *STORES], ids=name_of)
    def test_the_page_on_kubernetes_lists_the_overlay(self, overlay: Path) -> None:
        assert f"`{overlay.name}`" in PAGE.read_text()

    def test_the_kustomization_of_the_page_on_kubernetes_works(self, tmp_path: Path) -> None:
        (example,) = re.findall("```yaml\n(# kustomization.yaml\n.*?)```", PAGE.read_text(), re.DOTALL)
        (tmp_path / "kustomization.yaml").write_text(example)
        (tmp_path / "weightlift").symlink_to(K8S.parent)

        resources = render(tmp_path)

        assert named(resources, "ConfigMap", "model")["data"]["MODEL_URI"] == "hf://your/model"
        assert {container["image"] for container in containers(pod_spec(named(resources, "Job", "prefetch")))} == {
            "your.registry/weightlift:0.1.0"
        }


def fetching_container(spec: Resource) -> str | None:
    where = {"initContainers": "init-container", "containers": "container"}
    labels = [label for kind, label in where.items() for each in spec.get(kind, []) if each["name"] == "fetch"]
    return labels[0] if labels else None


CHOSEN_BY_USERS = {"peer-certificates"}
"""Components that need something of the cluster, and so are in no overlay."""
BASELINE_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
BASELINE_CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}
LEVELS = {"no-fsgroup": "baseline", "memory-node": "privileged", "node-cache": "privileged", "peers": "privileged"}
"""Directories whose level is not `restricted`."""


class TestPodSecurity:
    """The levels of the Pod Security Standards, which are labels of a namespace."""

    @pytest.mark.parametrize("directory", DIRECTORIES, ids=name_of)
    def test_a_namespace_of_the_documented_level_admits_the_pods(self, directory: Path) -> None:
        levels = {level(pod_spec(workload)) for workload in workloads(render(directory))}

        assert strictest(levels) == LEVELS.get(directory.name, "restricted")

    def test_root_filesystems_are_read_only(self) -> None:
        for _, container in every_container():
            assert container["securityContext"]["readOnlyRootFilesystem"] is True

    def test_only_the_preparation_of_a_volume_has_capabilities(self) -> None:
        for _, container in every_container():
            added = container["securityContext"]["capabilities"].get("add", [])

            assert added == (["CHOWN", "FOWNER"] if container["name"].endswith("-prep") else [])

    def test_no_pod_has_a_service_account_token(self) -> None:
        for _, workload in every_workload():
            assert pod_spec(workload)["automountServiceAccountToken"] is False

    def test_the_hubs_token_is_never_an_argument(self) -> None:
        for _, container in every_container():
            words = " ".join([*container["command"], *container.get("args", [])])

            assert not re.search(r"HF_|\$\(\w*(TOKEN|SECRET)", words.upper())

    def test_an_engine_mounts_the_model_read_only(self) -> None:
        engines = [(name, container) for name, container in every_container() if container["name"] == "engine"]

        assert len(engines) > len(OVERLAYS)
        for name, engine in engines:
            (mount,) = [mount for mount in engine["volumeMounts"] if mount["mountPath"] in ("/models", "/flash")]

            assert mount["readOnly"] is True, name


def level(spec: Resource) -> str:
    """Return the strictest level of the Pod Security Standards that admits the pod."""
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    added = {each for container in containers(spec) for each in container["securityContext"]["capabilities"].get("add", [])}
    if kinds - BASELINE_VOLUMES or added - BASELINE_CAPABILITIES or {"hostNetwork", "hostPID", "hostIPC"} & set(spec):
        return "privileged"
    contexts = [{**spec["securityContext"], **container["securityContext"]} for container in containers(spec)]
    return "restricted" if not added and all(map(restricted, contexts)) else "baseline"


def restricted(context: Resource) -> bool:
    return (
        context["runAsNonRoot"] is True
        and context["runAsUser"] != 0
        and context["allowPrivilegeEscalation"] is False
        and context["capabilities"]["drop"] == ["ALL"]
        and context["seccompProfile"] == {"type": "RuntimeDefault"}
    )


def strictest(levels: set[str]) -> str:
    return next(each for each in ("privileged", "baseline", "restricted") if each in levels)


def every_container() -> Iterator[tuple[str, Resource]]:
    for name, workload in every_workload():
        for container in containers(pod_spec(workload)):
            yield f"{name}/{workload['metadata']['name']}/{container['name']}", container


class TestFailurePolicy:
    def test_final_exit_codes_end_a_job_immediately(self) -> None:
        for job in jobs():
            assert {decision(job, code) for code in exit_codes(retryable=False)} == {"FailJob"}

    def test_retryable_exit_codes_are_retried(self) -> None:
        for job in jobs():
            assert {decision(job, code) for code in exit_codes(retryable=True) | {128 + 9, 128 + 15}} == {"Count"}

    def test_a_disruption_never_counts_as_a_failure(self) -> None:
        for job in jobs():
            assert {decision(job, code, disrupted=True) for code in (65, 75, 137, 143)} == {"Ignore"}

    def test_a_job_never_restarts_its_containers_in_place(self) -> None:
        for job in jobs():
            assert pod_spec(job)["restartPolicy"] == "Never"


def jobs() -> list[Resource]:
    chosen = [workload for _, workload in every_workload() if workload["kind"] in ("Job", "CronJob")]
    assert len(chosen) >= len(("prefetch", "verify", "hydrate", "gc"))
    return chosen


def exit_codes(*, retryable: bool) -> set[int]:
    return {each.exit_code for each in errors(FetchError) if each.retryable is retryable}


def errors(root: type[FetchError]) -> Iterator[type[FetchError]]:
    assert issubclass(loader.errors.LoadError, FetchError)  # importing both modules makes both branches visible
    yield root
    for child in root.__subclasses__():
        yield from errors(child)


def decision(job: Resource, code: int, *, disrupted: bool = False) -> str:
    """Return the Job controller's action on a failed pod: that of the first matching rule, else the failure counts."""
    names = {container["name"] for container in containers(pod_spec(job))}
    for rule in job_spec(job)["podFailurePolicy"]["rules"]:
        action: str = rule["action"]
        if disrupted and {"type": "DisruptionTarget", "status": "True"} in rule.get("onPodConditions", []):
            return action
        codes = rule.get("onExitCodes")
        if codes is not None:
            assert codes["containerName"] in names
            assert codes["operator"] == "In"
            if code in codes["values"]:
                return action
    return "Count"


class TestMemory:
    def test_memory_requests_equal_memory_limits(self) -> None:
        for name, container in every_container():
            requested, limit = (container["resources"][kind]["memory"] for kind in ("requests", "limits"))

            assert requested == limit, name

    def test_a_container_that_fills_a_memory_volume_has_its_size_and_a_gibibyte(self) -> None:
        for name, spec, volume in memory_volumes():
            for container in containers(spec):
                if writes_to(container, volume["name"]) and container["name"] != "engine":
                    assert limit_of(container) >= parse_size(volume["emptyDir"]["sizeLimit"]) + GiB, name

    def test_an_engine_with_a_memory_volume_has_its_size_in_addition(self) -> None:
        (plain,) = pod_spec(named(render(K8S / "base" / "serve"), "Deployment", "engine"))["containers"]
        copies = [(name, spec, volume) for name, spec, volume in memory_volumes() if volume["name"] != "shared-memory"]

        assert copies
        for name, spec, volume in copies:
            (engine,) = spec["containers"]

            assert limit_of(engine) == limit_of(plain) + parse_size(volume["emptyDir"]["sizeLimit"]), name

    def test_a_pod_that_holds_pages_is_guaranteed(self) -> None:
        daemons = pod_spec(named(render(K8S / "overlays" / "page-cache"), "DaemonSet", "page-cache"))

        for container in containers(daemons):
            assert container["resources"]["requests"] == container["resources"]["limits"]


def memory_volumes() -> Iterator[tuple[str, Resource, Resource]]:
    for name, workload in every_workload():
        for volume in pod_spec(workload)["volumes"]:
            if volume.get("emptyDir", {}).get("medium") == "Memory":
                yield name, pod_spec(workload), volume


def writes_to(container: Resource, volume: str) -> bool:
    return any(mount["name"] == volume and not mount.get("readOnly") for mount in container["volumeMounts"])


def limit_of(container: Resource) -> int:
    return parse_size(container["resources"]["limits"]["memory"])


class TestWaitingForTheModel:
    """A pod that waits for weights does not fail, and is not scheduled where they do not fit."""

    FETCH_OF_AN_HOUR = 3600

    def test_the_progress_deadline_of_every_deployment_exceeds_a_fetch(self) -> None:
        deployments = [(name, each["spec"]) for name, each in every_workload() if each["kind"] == "Deployment"]
        assert deployments
        for name, spec in deployments:
            assert spec.get("progressDeadlineSeconds", 600) >= self.FETCH_OF_AN_HOUR, name

    def test_a_pod_with_the_model_on_its_disk_requests_that_much_storage(self) -> None:
        names = []
        for name, workload in every_workload():
            spec = pod_spec(workload)
            held = sum(parse_size(volume["emptyDir"]["sizeLimit"]) for volume in spec["volumes"] if _holds_model(spec, volume))
            if held:
                names.append(name)
                assert _requested_storage(spec) >= held, name
        assert "init-container" in names


def _holds_model(spec: Resource, volume: Resource) -> bool:
    """Tell whether an init container fills the volume, a directory of the node's disk, and a container reads it."""
    if "emptyDir" not in volume or volume["emptyDir"].get("medium") == "Memory":
        return False
    filled = _mounts(spec.get("initContainers", ()), volume["name"], read_only=False)
    return filled and _mounts(spec["containers"], volume["name"], read_only=True)


def _mounts(among: Iterable[Resource], volume: str, *, read_only: bool) -> bool:
    return any(
        mount["name"] == volume and mount.get("readOnly", False) == read_only
        for container in among
        for mount in container.get("volumeMounts", ())
    )


def _requested_storage(spec: Resource) -> int:
    """Return the request that the scheduler uses: the sum of the containers, or the maximum of an init container."""

    def request(container: Resource) -> int:
        return parse_size(container.get("resources", {}).get("requests", {}).get("ephemeral-storage", "0"))

    return max([sum(map(request, spec["containers"])), *map(request, spec.get("initContainers", ()))])
