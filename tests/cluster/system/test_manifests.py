"""The install: valid for Kubernetes, with the least rights, and agents bound to their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cel
import pytest
from kubernetes_validate import utils as kubernetes

from cluster.binding import KSERVE_POLICY as KSERVES
from cluster.binding import NODE_CLAIM, SYSTEM_POLICY
from cluster.controller.daemon_set import Agents, documents_of
from cluster.controller.jobs import Means, permission
from cluster.kserve.webhooks import PATH
from cluster.resources import CACHE_POOL
from tests.cluster.api import Cluster, cluster
from tests.k8s.manifests.rendering import K8S, Resource, containers, named, pod_spec, render

BASE = K8S / "system" / "base"
UNBOUND = K8S / "system" / "overlays" / "unbound-agents"
LABELS = K8S / "system" / "overlays" / "node-labels"
KSERVE = [K8S / "integrations" / "kserve" / part for part in ("agent", "manager", "webhooks")]
CERT_MANAGER = K8S / "integrations" / "kserve" / "webhooks-cert-manager"
NAMESPACE = "weightlift-system"
AGENT = "weightlift-agent-h100"
CONTROLLER = "weightlift-controller"
OLDEST = "1.31"


class TestSchemas:
    @pytest.mark.parametrize("version", [OLDEST, kubernetes.latest_version()])
    @pytest.mark.parametrize("directory", [BASE, UNBOUND, LABELS, *KSERVE], ids=lambda path: path.name)
    def test_every_resource_is_valid_and_has_no_unknown_field(self, directory: Any, version: str) -> None:
        for resource in render(directory):
            kubernetes.validate(resource, version, strict=True)


class TestKServe:
    """Our agent and our controller in the place of KServe's."""

    def test_an_agent_is_that_of_a_pool_apart_from_its_names_and_arguments(self) -> None:
        ours = pod_spec(named(render(KSERVE[0]), "DaemonSet", "weightlift-agent"))
        pool = CACHE_POOL.read({"metadata": {"name": "p"}, "spec": {"root": "/mnt/models"}})
        made = pod_spec(documents_of(pool, Agents(ours["containers"][0]["image"], "kserve"))[-1])

        for same in ("securityContext", "tolerations", "enableServiceLinks"):
            assert ours[same] == made[same]
        for container, other in zip(containers(ours), containers(made), strict=True):
            for same in ("securityContext", "resources", "livenessProbe", "readinessProbe", "ports", "env"):
                assert container.get(same) == other.get(same)

    def test_the_manager_is_the_controller_with_one_word_more(self) -> None:
        (ours,) = containers(pod_spec(named(render(KSERVE[1]), "Deployment", CONTROLLER)))
        (base,) = containers(pod_spec(named(render(BASE), "Deployment", CONTROLLER)))

        assert [each for each in ours["env"] if each not in base["env"]] == [{"name": "WEIGHTLIFT_KSERVE", "value": "manager"}]

    def test_the_webhooks_have_a_certificate_a_port_and_a_service(self) -> None:
        resources = render(KSERVE[2])
        spec = pod_spec(named(resources, "Deployment", CONTROLLER))
        (container,) = containers(spec)
        (mount,) = container["volumeMounts"]

        assert {"name": "WEIGHTLIFT_WEBHOOK_CERTIFICATES", "value": mount["mountPath"]} in container["env"]
        assert spec["volumes"][0]["secret"] == {"secretName": "weightlift-webhooks", "defaultMode": 0o440}
        assert {"name": "webhooks", "containerPort": 9443} in container["ports"]
        assert {"protocol": "TCP", "port": 9443} in named(resources, "NetworkPolicy", "weightlift")["spec"]["ingress"][0][
            "ports"
        ]
        service = named(resources, "Service", "weightlift-webhooks")
        for each in _webhooks(resources):
            reached = each["clientConfig"]["service"]
            assert (reached["name"], reached["path"]) == (service["metadata"]["name"], PATH)
        assert service["spec"]["ports"][0]["targetPort"] == "webhooks"
        assert (
            service["spec"]["selector"].items()
            <= named(resources, "Deployment", CONTROLLER)["spec"]["template"]["metadata"]["labels"].items()
        )

    def test_a_webhook_that_does_not_answer_stops_nothing(self) -> None:
        for each in _webhooks(render(KSERVE[2])):
            assert (each["failurePolicy"], each["sideEffects"], each["timeoutSeconds"]) == ("Ignore", "None", 5)

    def test_cert_manager_writes_the_certificate_and_its_authority(self) -> None:
        resources = render(CERT_MANAGER)
        certificate = named(resources, "Certificate", "weightlift-webhooks")
        place = certificate["metadata"]["namespace"]

        assert certificate["spec"]["dnsNames"] == [f"weightlift-webhooks.{place}.svc"]
        (volume,) = pod_spec(named(resources, "Deployment", CONTROLLER))["volumes"]
        assert volume["secret"]["secretName"] == certificate["spec"]["secretName"]
        for each in resources:
            if each["kind"].endswith("WebhookConfiguration"):
                annotations = each["metadata"]["annotations"]
                assert annotations == {"cert-manager.io/inject-ca-from": f"{place}/weightlift-webhooks"}


def _webhooks(resources: Sequence[Resource]) -> list[Any]:
    return [each for found in resources if found["kind"].endswith("WebhookConfiguration") for each in found["webhooks"]]


class TestController:
    def test_runs_restricted(self) -> None:
        spec = pod_spec(named(render(BASE), "Deployment", CONTROLLER))

        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert "volumes" not in spec
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }

    def test_gives_agents_its_own_image(self) -> None:
        (container,) = containers(pod_spec(named(render(BASE), "Deployment", CONTROLLER)))

        assert container["image"] in [each.get("value") for each in container["env"] if each["name"] == "WEIGHTLIFT_IMAGE"]


POLICY = named(render(BASE), "ValidatingAdmissionPolicy", SYSTEM_POLICY)
KSERVE_POLICY = named(render(KSERVE[0]), "ValidatingAdmissionPolicy", KSERVES)


def verdict(resource: str, name: str, user: dict[str, Any], policy: Resource) -> list[str]:
    """Return the messages with which `policy` denies that `user` writes an object; none if it does not."""
    spec = policy["spec"]
    request = {"userInfo": user, "resource": {"resource": resource}}
    known: dict[str, Any] = {"request": request, "object": {"metadata": {"name": name}}, "variables": {}}
    if not all(cel.evaluate(each["expression"], known) for each in spec["matchConditions"]):
        return []
    for variable in spec["variables"]:
        known["variables"][variable["name"]] = cel.evaluate(variable["expression"], known)
    return [each["message"] for each in spec["validations"] if not cel.evaluate(each["expression"], known)]


AGENTS = {"of a pool": (POLICY, f"{NAMESPACE}:{AGENT}"), "of KServe": (KSERVE_POLICY, "kserve:weightlift-agent")}
policies = pytest.mark.parametrize(("policy", "account"), AGENTS.values(), ids=AGENTS)


def agent(node: str | None, account: str) -> dict[str, Any]:
    """An agent as the API server sees it, with a token of a pod on `node`."""
    user: dict[str, Any] = {"username": f"system:serviceaccount:{account}"}
    return user if node is None else {**user, "extra": {NODE_CLAIM: [node]}}


def concerned(policy: Resource) -> dict[str, list[str]]:
    """The resources whose writes a policy judges, by API group."""
    rules = policy["spec"]["matchConstraints"]["resourceRules"]
    assert all(each["operations"] == ["CREATE", "UPDATE"] for each in rules)
    return {group: each["resources"] for each in rules for group in each["apiGroups"]}


class TestAdmission:
    """Evaluated here, because the policy's API is newer than the cluster of the tests."""

    def test_judges_what_agents_write(self) -> None:
        """Of KServe's also what they have no right to, should somebody give it to them."""
        assert concerned(POLICY) == {
            "weightlift.dev": ["nodecaches", "nodecaches/status"],
            "coordination.k8s.io": ["leases"],
        }
        assert concerned(KSERVE_POLICY) == {
            "serving.kserve.io": ["localmodelnodes", "localmodelnodes/status"],
            "coordination.k8s.io": ["leases"],
        }

    @pytest.mark.parametrize(("directory", "name"), [(BASE, SYSTEM_POLICY), (KSERVE[0], KSERVES)], ids=AGENTS)
    def test_denies_by_a_binding(self, directory: Path, name: str) -> None:
        spec = named(render(directory), "ValidatingAdmissionPolicyBinding", name)["spec"]

        assert spec == {"policyName": name, "validationActions": ["Deny"]}

    @policies
    @pytest.mark.parametrize("resource", ["nodecaches", "localmodelnodes"])
    def test_an_agent_may_write_the_status_of_its_own_node(self, resource: str, policy: Resource, account: str) -> None:
        assert verdict(resource, "n1", agent("n1", account), policy) == []

    @policies
    def test_an_agent_may_renew_the_lease_of_its_own_node(self, policy: Resource, account: str) -> None:
        assert verdict("leases", "weightlift-agent.n1", agent("n1", account), policy) == []

    @policies
    @pytest.mark.parametrize(
        ("resource", "name"),
        [
            ("nodecaches", "n2"),
            ("localmodelnodes", "n2"),
            ("leases", "weightlift-agent.n2"),
            ("leases", "weightlift-controller"),
            ("leases", "kserve-local-model-manager-leader-lock"),
            ("leases", "n1"),
            ("nodecaches", "weightlift-agent.n1"),
        ],
    )
    def test_an_agent_may_write_nothing_else(self, resource: str, name: str, policy: Resource, account: str) -> None:
        assert verdict(resource, name, agent("n1", account), policy) == ["an agent writes only the objects of its own node"]

    @policies
    @pytest.mark.parametrize("extra", [None, {}, {NODE_CLAIM: [""]}], ids=["no extra", "empty", "no name"])
    def test_a_token_without_a_node_may_write_nothing(self, extra: Any, policy: Resource, account: str) -> None:
        user = {**agent(None, account), **({} if extra is None else {"extra": extra})}

        assert "the agent's token does not name its node; use Kubernetes 1.30 or later" in verdict("leases", "n1", user, policy)

    @policies
    def test_a_token_of_two_nodes_may_write_nothing(self, policy: Resource, account: str) -> None:
        both = {**agent(None, account), "extra": {NODE_CLAIM: ["n1", "n2"]}}

        assert verdict("leases", "weightlift-agent.n1", both, policy) != []

    @policies
    @pytest.mark.parametrize(
        "name",
        [
            "system:serviceaccount:weightlift-system:weightlift-controller",
            "system:serviceaccount:kserve:weightlift-agent-h100",
            "admin",
            f"system:serviceaccount:team:{AGENT}",
            "system:serviceaccount:team:weightlift-agent",
        ],
    )
    def test_others_are_not_judged(self, name: str, policy: Resource, account: str) -> None:
        assert verdict("nodecaches", "n2", {"username": name}, policy) == []


@pytest.fixture(scope="module")
def api() -> Iterator[Cluster]:
    """A cluster with the rights of the install, and none of its workloads."""
    found = cluster()
    rights = [each for each in render(UNBOUND) if each["kind"] in ("Namespace", "ServiceAccount") or "Role" in each["kind"]]
    for resource in rights:
        assert found.apply(resource) == ""
    yield found
    for resource in rights:
        found.run(
            "delete", resource["kind"], resource["metadata"]["name"], "-n", NAMESPACE, "--wait=false", "--ignore-not-found"
        )


def may(api: Cluster, account: str, verb: str, resource: str, namespace: str) -> bool:
    where = ["-n", namespace] if namespace else ["--all-namespaces"]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    kind, _, subresource = resource.partition("/")
    done = api.run(
        *(
            "auth",
            "can-i",
            verb,
            kind,
            f"--subresource={subresource}",
            *where,
            f"--as=system:serviceaccount:{NAMESPACE}:{account}",
        ),
        *(f"--as-group={group}" for group in groups),
    )
    return done.stdout.strip() == "yes"


class TestRights:
    """As the API server's RBAC answers."""

    @pytest.mark.parametrize(
        ("account", "verb", "resource", "namespace"),
        [
            (AGENT, "watch", "nodecaches.weightlift.dev", ""),
            (AGENT, "patch", "nodecaches.weightlift.dev/status", ""),
            (AGENT, "get", "modelcaches.weightlift.dev", "default"),
            (AGENT, "update", "leases.coordination.k8s.io", NAMESPACE),
            (CONTROLLER, "patch", "nodecaches.weightlift.dev", ""),
            (CONTROLLER, "create", "cacheartifacts.weightlift.dev", ""),
            (AGENT, "get", "cacheartifacts.weightlift.dev", ""),
            (CONTROLLER, "patch", "modelcaches.weightlift.dev/status", "default"),
            (CONTROLLER, "create", "persistentvolumeclaims", "default"),
            (CONTROLLER, "create", "daemonsets.apps", NAMESPACE),
            (CONTROLLER, "watch", "jobs.batch", ""),
        ],
    )
    def test_allow_what_is_needed(self, api: Cluster, account: str, verb: str, resource: str, namespace: str) -> None:
        assert may(api, account, verb, resource, namespace)

    @pytest.mark.parametrize("verb", ["get", "list", "watch"])
    @pytest.mark.parametrize("namespace", ["default", NAMESPACE, ""])
    @pytest.mark.parametrize("account", [AGENT, CONTROLLER])
    def test_show_no_secret(self, api: Cluster, account: str, verb: str, namespace: str) -> None:
        assert not may(api, account, verb, "secrets", namespace)

    @pytest.mark.parametrize("verb", ["create", "update", "patch", "delete"])
    @pytest.mark.parametrize(
        "resource", ["nodes", "nodes/status", "pods", "modelcaches.weightlift.dev", "nodecaches.weightlift.dev"]
    )
    def test_let_an_agent_write_nothing_but_its_status(self, api: Cluster, verb: str, resource: str) -> None:
        assert not may(api, AGENT, verb, resource, "")

    @pytest.mark.parametrize(
        ("verb", "resource", "namespace"),
        [
            ("update", "nodes", ""),
            ("patch", "nodes", ""),
            ("create", "pods", NAMESPACE),
            ("create", "daemonsets.apps", "default"),
            ("create", "jobs.batch", "default"),
            ("delete", "jobs.batch", "default"),
            ("create", "jobs.batch", NAMESPACE),
            ("delete", "modelcaches.weightlift.dev", "default"),
            ("update", "modelcaches.weightlift.dev", "default"),
            ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
            ("create", "rolebindings.rbac.authorization.k8s.io", NAMESPACE),
            ("escalate", "clusterroles.rbac.authorization.k8s.io", ""),
            ("create", "serviceaccounts/token", NAMESPACE),
        ],
    )
    def test_let_the_controller_not_exceed_itself(self, api: Cluster, verb: str, resource: str, namespace: str) -> None:
        assert not may(api, CONTROLLER, verb, resource, namespace)

    def test_let_the_controller_make_jobs_where_a_namespace_says_so_and_nowhere_else(self, api: Cluster) -> None:
        words = permission("default", Means("image", account=f"{NAMESPACE}:{CONTROLLER}")).split()[1:]
        assert api.run(*words).returncode == 0
        try:
            assert may(api, CONTROLLER, "create", "jobs.batch", "default")
            assert may(api, CONTROLLER, "delete", "jobs.batch", "default")
            assert not may(api, CONTROLLER, "create", "jobs.batch", "kube-system")
            assert not may(api, CONTROLLER, "create", "pods", "default")
        finally:
            api.run("delete", "rolebinding", "weightlift-claims", "-n", "default")

    def test_let_the_controller_label_nodes_only_with_the_component_for_it(self) -> None:
        def about_nodes(resources: tuple[Resource, ...]) -> set[str]:
            rules = [rule for each in resources if each["kind"] == "ClusterRole" for rule in each["rules"]]
            return {verb for rule in rules if "nodes" in rule["resources"] for verb in rule["verbs"]}

        assert about_nodes(render(BASE)) == {"get", "list", "watch"}
        assert about_nodes(render(LABELS)) == {"get", "list", "watch", "patch"}
