"""Whether this cluster binds agents to their nodes. Where it does not, any agent could write the status of any node.

That takes an admission policy, its binding, and the node's name in the tokens of pods, by which the policy tells agents apart.
Whether tokens have it the API server says of the token of this very process: everybody may ask that, so no right is needed, and
one API server makes the tokens of all pods alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.client import Api, Endpoint, Missing
from fetcher.errors import ConfigurationError

SYSTEM_POLICY = "weightlift-agents"
KSERVE_POLICY = "weightlift-kserve-agents"
NODE_CLAIM = "authentication.kubernetes.io/node-name"
"""The node of a pod in what its token says, since Kubernetes 1.30 (ServiceAccountTokenPodNodeInfo)."""
_API = "admissionregistration.k8s.io/v1"
_POLICIES = Endpoint(_API, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False)
_BINDINGS = Endpoint(_API, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", namespaced=False)
_REVIEWS = Endpoint("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False)
_ACCEPT = "or accept with --allow-unbound-agents that any agent can write any node's status"


async def refuse_unbound_agents(api: Api, policy: str) -> None:
    """Raise ConfigurationError unless `policy` is there, denies, and can tell agents apart; ApiError.

    What changes later is not noticed.
    """
    await _required(api, _POLICIES, policy)
    binding = (await _required(api, _BINDINGS, policy))["spec"]
    if binding.get("policyName") != policy or "Deny" not in binding.get("validationActions", ()):
        raise ConfigurationError(f"{_BINDINGS.kind} {policy} does not deny what the policy forbids; install it anew, {_ACCEPT}")
    if not _names_a_node(await _review(api)):
        raise ConfigurationError(
            "the token of this process does not name its node, so those of agents do not either; use Kubernetes 1.30 or later, "
            f"run this in a pod of the cluster, {_ACCEPT}"
        )


async def _required(api: Api, endpoint: Endpoint, name: str) -> Mapping[str, Any]:
    try:
        return await api.get(endpoint, name)
    except Missing:
        raise ConfigurationError(
            f"there is no {endpoint.kind} {name}; install it (Kubernetes 1.30 or later), {_ACCEPT}"
        ) from None


async def _review(api: Api) -> Mapping[str, Any]:
    """Return whom the API server takes this process for; nobody if it cannot say, before Kubernetes 1.28. Raises ApiError."""
    try:
        answer = await api.review(_REVIEWS, {"apiVersion": _REVIEWS.api_version, "kind": _REVIEWS.kind})
    except Missing:
        return {}
    found: Mapping[str, Any] = (answer.get("status") or {}).get("userInfo") or {}
    return found


def _names_a_node(user: Mapping[str, Any]) -> bool:
    return any((user.get("extra") or {}).get(NODE_CLAIM) or ())
