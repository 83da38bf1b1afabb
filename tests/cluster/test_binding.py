"""Where agents are not bound to their nodes, the installation stops.

The cluster of the tests may be older than the policy's API and than nodes in tokens, so a proxy answers for a newer one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.binding import SYSTEM_POLICY, refuse_unbound_agents
from cluster.client import Api, Forbidden
from fetcher.errors import ConfigurationError
from tests.cluster.controller.playing import Stage, controller, stage
from tests.cluster.faults import Fault, Front, Refuse, Send, faulty_api
from tests.k8s.manifests.rendering import K8S, named, render
from tests.lab.command import run_command

BASE = render(K8S / "system" / "base")
POLICY = named(BASE, "ValidatingAdmissionPolicy", SYSTEM_POLICY)
BINDING = named(BASE, "ValidatingAdmissionPolicyBinding", SYSTEM_POLICY)
CONTROLLER = (sys.executable, "-m", "cluster.controller.main", "--image", "example.com/weightlift:0.1.0")
MISSING = Refuse(404, message="the server could not find the requested resource")


def serve(front: Front, kind: str, answer: Fault | dict[str, Any]) -> None:
    """Answer all requests for a kind by `answer`."""
    front.fail(Send([json.dumps(answer).encode()]) if isinstance(answer, dict) else answer, path=f"/{kind}")


def myself(*nodes: str) -> dict[str, Any]:
    """What the API server says of a token that names `nodes`."""
    user = {"username": "system:serviceaccount:weightlift-system:weightlift-controller"}
    extra = {"extra": {"authentication.kubernetes.io/node-name": nodes}} if nodes else {}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "status": {"userInfo": {**user, **extra}}}


def installed(
    front: Front,
    *,
    policy: Fault | dict[str, Any] = POLICY,
    binding: Fault | dict[str, Any] = BINDING,
    review: Fault | dict[str, Any] | None = None,
    name: str = SYSTEM_POLICY,
) -> None:
    """Answer as a cluster with the installation does, but for what a test says. `name`: of the policy."""
    serve(front, f"validatingadmissionpolicies/{name}", policy)
    serve(front, f"validatingadmissionpolicybindings/{name}", binding)
    serve(front, "selfsubjectreviews", review or myself("n1"))


@pytest.fixture
def front() -> Iterator[Front]:
    with faulty_api() as made:
        yield made


async def refuse(front: Front) -> None:
    async with Api(front.access(), manager="test") as api:
        await refuse_unbound_agents(api, SYSTEM_POLICY)


class TestCluster:
    async def test_with_policy_binding_and_claim_binds_agents(self, front: Front) -> None:
        installed(front)

        await refuse(front)

        assert [(each.method, each.path.rpartition("/")[2]) for each in front.asked] == [
            ("GET", SYSTEM_POLICY),
            ("GET", SYSTEM_POLICY),
            ("POST", "selfsubjectreviews"),
        ]

    @pytest.mark.parametrize(
        ("lacks", "says"),
        [
            ({"policy": MISSING}, "there is no ValidatingAdmissionPolicy weightlift-agents; install it"),
            ({"binding": MISSING}, "there is no ValidatingAdmissionPolicyBinding weightlift-agents; install it"),
            ({"binding": {**BINDING, "spec": {**BINDING["spec"], "validationActions": ["Audit"]}}}, "does not deny"),
            ({"binding": {**BINDING, "spec": {**BINDING["spec"], "policyName": "another"}}}, "does not deny"),
            ({"review": MISSING}, "the token of this process does not name its node"),
            ({"review": myself()}, "the token of this process does not name its node"),
            ({"review": myself("")}, "the token of this process does not name its node"),
        ],
        ids=["policy", "binding", "denial", "right policy", "reviews", "claim", "name"],
    )
    async def test_without_the(self, front: Front, lacks: dict[str, Any], says: str) -> None:
        installed(front, **lacks)

        with pytest.raises(ConfigurationError) as refused:
            await refuse(front)

        assert says in refused.value.message
        assert "--allow-unbound-agents" in refused.value.message
        assert refused.value.exit_code == 78

    async def test_that_does_not_let_it_look_is_told_as_it_is(self, front: Front) -> None:
        installed(front, policy=Refuse(403, message="no rights"))

        with pytest.raises(Forbidden, match="no rights"):
            await refuse(front)

    async def test_itself_binds_nobody_who_is_no_pod(self, front: Front) -> None:
        """The real API server about the certificate of the tests, whatever its version."""
        serve(front, f"validatingadmissionpolicies/{SYSTEM_POLICY}", POLICY)
        serve(front, f"validatingadmissionpolicybindings/{SYSTEM_POLICY}", BINDING)

        with pytest.raises(ConfigurationError, match="does not name its node"):
            await refuse(front)


class TestController:
    def run(self, front: Front, directory: Path, *words: str) -> tuple[int, str]:
        done = run_command(CONTROLLER, "--kubeconfig", front.kubeconfig(directory / "kubeconfig"), *words)
        return done.returncode, done.stderr

    @pytest.mark.parametrize(
        ("lacks", "says"),
        [({"policy": MISSING}, "there is no ValidatingAdmissionPolicy"), ({"review": myself()}, "does not name its node")],
        ids=["policy", "claim"],
    )
    def test_stops_before_it_leads(self, front: Front, tmp_path: Path, lacks: dict[str, Any], says: str) -> None:
        installed(front, **lacks)

        code, log = self.run(front, tmp_path)

        assert code == 78
        assert says in log
        assert "--allow-unbound-agents" in log
        assert front.count(path="/leases") == front.count(method="GET", path="/leases")
        assert front.count(method="PATCH") == 0

    @pytest.mark.parametrize("bound", [True, False], ids=["bound agents", "unbound agents that were accepted"])
    async def test_leads_with(self, front: Front, tmp_path: Path, bound: bool) -> None:
        log = tmp_path / "log"
        if bound:
            installed(front)
        async with stage() as cluster:
            proxied = Stage(cluster.api, front.kubeconfig(tmp_path / "kubeconfig"), cluster.name)
            with controller(proxied, log, bound=bound):

                async def leads() -> bool:
                    return "leads" in log.read_text()

                await cluster.until("it leads", leads)
        assert front.count(path="validatingadmissionpolicies/") == bound
