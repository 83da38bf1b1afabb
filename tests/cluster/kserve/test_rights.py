"""The rights of our agent and our controller in the place of KServe's, as the API server's RBAC answers.

Each test has the manifests' rights under names of its own, and asks with the tokens of their accounts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from cluster.binding import KSERVE_POLICY, SYSTEM_POLICY
from cluster.client import endpoint_of
from cluster.client.endpoints import SECRETS
from cluster.kserve.kinds import LOCAL_MODEL_NODE_GROUP
from fetcher.testing.origin import Origin
from tests.cluster.api import Cluster
from tests.cluster.faults import Asked, faulty_api
from tests.cluster.kserve.conftest import Place
from tests.cluster.kserve.test_agents import Node, files, model
from tests.cluster.kserve.test_agents import origin as origin
from tests.cluster.test_binding import installed
from tests.k8s.manifests.rendering import K8S, Resource, named, render
from tests.lab.waiting import wait_until

KSERVE = K8S / "integrations" / "kserve"
POLICY = named(render(KSERVE / "agent"), "ValidatingAdmissionPolicy", KSERVE_POLICY)
BINDING = named(render(KSERVE / "agent"), "ValidatingAdmissionPolicyBinding", KSERVE_POLICY)
EVERYBODYS = "create selfsubjectreviews.authentication.k8s.io"
"""A right that system:basic-user gives."""
POLICIES = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
FOR_ROOM = {"get localmodelcaches.serving.kserve.io", "get localmodelnamespacecaches.serving.kserve.io"}
"""Rights that an agent uses only while something waits for room."""
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def rights(directory: Path, place: Place) -> list[Resource]:
    """Accounts, roles and bindings of a kustomization, in the namespaces of a test."""
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    text = yaml.safe_dump_all(each for each in render(directory) if each["kind"] in kinds)
    for name in ("kserve", "weightlift-system"):  # one namespace is enough here
        text = text.replace(f"namespace: {name}\n", f"namespace: {place.kserve}\n")
    text = text.replace("system:serviceaccounts:weightlift-system", f"system:serviceaccounts:{place.kserve}")
    made = list(yaml.safe_load_all(text))
    for each in made:
        if each["kind"].startswith("ClusterRole"):
            each["metadata"]["name"] += f"-{place.mark}"
        if each["kind"] == "ClusterRoleBinding":
            each["roleRef"]["name"] += f"-{place.mark}"
    return made


@pytest.fixture
def installation(request: pytest.FixtureRequest, plane: Cluster, place: Place) -> Iterator[list[Resource]]:
    """The rights of a kustomization on the cluster."""
    made = rights(KSERVE / request.param, place)
    assert plane.apply({"apiVersion": "v1", "kind": "List", "items": made}) == ""
    yield made
    for each in made:
        if "namespace" not in each["metadata"]:  # the others go with their namespace
            plane.run("delete", each["kind"], each["metadata"]["name"], "--wait=false")


AGENT, MANAGER = "weightlift-agent", "weightlift-controller"
with_agent = pytest.mark.parametrize("installation", ["agent"], indirect=True)
with_manager = pytest.mark.parametrize("installation", ["manager"], indirect=True)


def token(plane: Cluster, place: Place, account: str) -> str:
    path = f"/api/v1/namespaces/{place.kserve}/serviceaccounts/{account}/token"
    question = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    done = plane.run("create", "--raw", path, "-f", "-", document=question)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["status"]["token"])


def right(asked: Asked) -> str:
    """The right that a request needs, as rules of RBAC say it."""
    _, kind, *rest = asked.path.split("/")
    group = rest.pop(0) if kind == "apis" else ""
    _, *rest = rest  # the version
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    reads = "watch" if asked.watch else "get" if name else "list"
    verb = reads if asked.method == "GET" else _VERBS[asked.method]
    return f"{verb} {resource}" + (f".{group}" if group else "") + (f"/{subresource}" if subresource else "")


def granted(resources: Sequence[Resource]) -> set[str]:
    """All rights of the roles."""
    return {
        f"{verb} {resource}{suffix}" + (f"/{subresource}" if subresource else "")
        for role in resources
        for rule in role.get("rules", ())
        for suffix in (f".{group}" if group else "" for group in rule["apiGroups"])
        for resource, _, subresource in (each.partition("/") for each in rule["resources"])
        for verb in rule["verbs"]
    }


def allow_secret(plane: Cluster, place: Place) -> None:
    """What a namespace does whose private models are fetched: the two commands of the documentation."""
    for words in (
        ("role", "weightlift", "--verb=get", "--resource=secrets", "--resource-name=storage-config"),
        ("rolebinding", "weightlift", "--role=weightlift", f"--serviceaccount={place.kserve}:{AGENT}"),
    ):
        assert plane.run("-n", place.team, "create", *words).returncode == 0


def storage(place: Place) -> Resource:
    entry = base64.b64encode(json.dumps({"type": "hf", "token": "good"}).encode()).decode()
    metadata = {"name": "storage-config", "namespace": place.team}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"hub": entry}}


def group(node: Node, directory: Path) -> Resource:
    volume = {"local": {"path": str(directory)}}
    spec = {"storageLimit": "1Gi", "persistentVolumeSpec": volume, "persistentVolumeClaimSpec": {}}
    kind = LOCAL_MODEL_NODE_GROUP
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": node.name}, "spec": spec}


class Account:
    """One of the accounts, which asks the API server by its own token."""

    def __init__(self, plane: Cluster, place: Place, name: str, directory: Path) -> None:
        config = yaml.safe_load(Path(plane.kubeconfig).read_text())
        config["users"][0]["user"] = {"token": token(plane, place, name)}
        (directory / name).write_text(yaml.safe_dump(config))
        self._as = Cluster(str(directory / name), plane.kubectl)

    def may(self, line: str) -> bool:
        """Whether it may do what a line says: verb, resource or status of it, and a namespace, or none for all."""
        verb, resource, *where = line.split()
        kind = resource.removesuffix("/status")
        subresource = () if kind == resource else ("--subresource=status",)
        place = ("-n", where[0]) if where else ("--all-namespaces",)
        return self._as.run("auth", "can-i", verb, kind, *subresource, *place).stdout.strip() == "yes"

    def may_get(self, kind: str, name: str) -> bool:
        """Whether it may read one admission policy, or one binding: kubectl knows only the kinds that its server has."""
        asked = {"group": "admissionregistration.k8s.io", "resource": kind, "name": name, "verb": "get"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        done = self._as.run(
            "create", "--raw", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "-f", "-", document=review
        )
        return bool(json.loads(done.stdout)["status"]["allowed"])

    def refused(self, *words: str) -> bool:
        """Whether the API server forbids a real request."""
        done = self._as.run(*words)
        return done.returncode != 0 and "Forbidden" in done.stderr


def refused_all(account: Account, lines: Sequence[str]) -> None:
    assert [each for each in lines if account.may(each)] == []


def reads_no_secret_and_writes_no_node(plane: Cluster, place: Place, account: Account) -> str:
    """By real requests. Returns the name of the node."""
    name = f"{place.mark}-n"
    assert plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}) == ""

    assert account.refused("get", "secrets", "--all-namespaces")
    assert account.refused("get", "secrets", "-n", place.kserve)
    assert account.refused("label", "node", name, "a=b")
    return name


NODES = [f"{verb} nodes{part}" for verb in ("create", "update", "patch", "delete") for part in ("", "/status")]


def secrets(place: Place) -> list[str]:
    return [
        f"{verb} secrets{where}" for verb in ("get", "list", "watch") for where in ("", f" {place.kserve}", f" {place.team}")
    ]


@with_agent
class TestAgent:
    def test_may_write_no_node_no_secret_and_no_specification(
        self, plane: Cluster, place: Place, installation: list[Resource], tmp_path: Path
    ) -> None:
        account = Account(plane, place, AGENT, tmp_path)

        assert account.may("patch localmodelnodes.serving.kserve.io/status")
        for kind in POLICIES:
            assert account.may_get(kind, KSERVE_POLICY)
            assert not account.may_get(kind, SYSTEM_POLICY)
        refused_all(account, [*NODES, *secrets(place)])
        refused_all(account, [f"{verb} localmodelnodes.serving.kserve.io" for verb in ("create", "update", "patch", "delete")])
        refused_all(account, [f"{verb} nodecaches.weightlift.dev" for verb in ("get", "list", "watch", "patch")])
        refused_all(account, ["list localmodelcaches.serving.kserve.io", f"list configmaps {place.team}", "list pods"])

    def test_is_refused_by_the_api_server_when_it_tries(
        self, plane: Cluster, place: Place, installation: list[Resource], tmp_path: Path
    ) -> None:
        account = Account(plane, place, AGENT, tmp_path)
        name = reads_no_secret_and_writes_no_node(plane, place, account)
        assert account.refused("annotate", "localmodelnode", name, "a=b")

    def test_has_every_right_that_it_uses_and_uses_every_right_that_it_has(
        self, plane: Cluster, place: Place, installation: list[Resource], origin: Origin, directory: Path, tmp_path: Path
    ) -> None:
        origin.add_repo("org/m", files(), private=True, readers=["good"])
        with faulty_api() as front:
            installed(front, policy=POLICY, binding=BINDING, name=KSERVE_POLICY)
            node = Node(plane, place, origin, directory)
            node.kubeconfig = front.kubeconfig(tmp_path / "kubeconfig", token=token(plane, place, AGENT))
            node.bound = True
            allow_secret(plane, place)
            node.apply(endpoint_of(LOCAL_MODEL_NODE_GROUP), group(node, directory))
            node.apply(SECRETS, storage(place))
            node.want(model("a", "hf://org/m", namespace=place.team, storage={"key": "hub"}, nodeGroup=node.name))
            try:
                node.start()
                node.becomes(**{f"{place.team}__a": "ModelDownloaded"})
            finally:
                node.stop()
            node.start()  # which renews the Lease that the first one has made
            try:
                wait_until(lambda: front.count(method="PUT", path="/leases/") > 0, "the Lease is renewed", timeout=60)
            finally:
                node.stop()
            assert [each for each in front.asked if each.status in (401, 403)] == []
            assert set(map(right, front.asked)) == (granted(installation) - FOR_ROOM) | {"get secrets", EVERYBODYS}


@with_manager
class TestManager:
    def test_writes_what_it_plans_and_no_node_no_service_and_no_secret(
        self, plane: Cluster, place: Place, installation: list[Resource], tmp_path: Path
    ) -> None:
        account = Account(plane, place, MANAGER, tmp_path)

        for each in (
            "create localmodelnodes.serving.kserve.io",
            "patch localmodelcaches.serving.kserve.io/status",
            "patch localmodelnamespacecaches.serving.kserve.io/status",
            "watch inferenceservices.serving.kserve.io",
        ):
            assert account.may(each), each
        assert account.may(f"update leases.coordination.k8s.io {place.kserve}")
        assert all(account.may_get(kind, SYSTEM_POLICY) for kind in POLICIES)
        refused_all(account, [*NODES, *secrets(place)])
        theirs = ("localmodelcaches", "localmodelnamespacecaches", "localmodelnodegroups", "inferenceservices")
        refused_all(account, [f"{verb} {kind}.serving.kserve.io" for verb in ("create", "delete") for kind in theirs])
        refused_all(account, [f"patch {kind}.serving.kserve.io" for kind in theirs[2:]])
        refused_all(account, ["patch localmodelnodes.serving.kserve.io/status"])
        refused_all(account, [f"create jobs.batch {place.team}", f"create pods {place.team}", f"list configmaps {place.team}"])

    def test_is_refused_by_the_api_server_when_it_tries(
        self, plane: Cluster, place: Place, installation: list[Resource], tmp_path: Path
    ) -> None:
        account = Account(plane, place, MANAGER, tmp_path)
        reads_no_secret_and_writes_no_node(plane, place, account)
