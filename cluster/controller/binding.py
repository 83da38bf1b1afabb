"""Whether this cluster binds agents to their nodes. Without an admission policy, any agent could write any node's status."""

from __future__ import annotations

from cluster.client import Api, Endpoint, Missing
from fetcher.errors import ConfigurationError

POLICY = "weightlift-agents"
_API = "admissionregistration.k8s.io/v1"
_NEEDED = (
    Endpoint(_API, "ValidatingAdmissionPolicy", "validatingadmissionpolicies", namespaced=False),
    Endpoint(_API, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", namespaced=False),
)


async def refuse_unbound_agents(api: Api) -> None:
    """Raise ConfigurationError if the policy of the installation or its binding is missing; ApiError."""
    for endpoint in _NEEDED:
        try:
            await api.get(endpoint, POLICY)
        except Missing:
            raise ConfigurationError(
                f"there is no {endpoint.kind} {POLICY}, so any agent could write any node's status; install it (Kubernetes "
                "1.30 or later), or accept that with --allow-unbound-agents"
            ) from None
