"""A throw-away cluster, named by WEIGHTLIFT_TEST_KUBECONFIG: kind, k3d, envtest, or whatever serves the API."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.resources.crds import KINDS, crd
from cluster.resources.kinds import GROUP
from tests.lab.availability import missing, program
from tests.lab.waiting import wait_until

KUBECONFIG = os.environ.get("WEIGHTLIFT_TEST_KUBECONFIG")
"""Read at import, because the environment of a test is cleaned."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, spoken to as people do."""

    kubeconfig: str
    kubectl: str

    def run(self, *arguments: str, document: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end, whatever its exit code. `document` is its stdin."""
        return subprocess.run(
            [self.kubectl, f"--kubeconfig={self.kubeconfig}", *arguments],
            input=None if document is None else json.dumps(document),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def apply(self, document: Mapping[str, Any], *flags: Sequence[str] | str) -> str:
        """Return what the server refuses of `document`, empty if it takes it."""
        # Without validation by the client: what the server does alone decides.
        return self.run("apply", "--validate=false", "-f", "-", *map(str, flags), document=document).stderr

    def serve_kinds(self) -> None:
        """Install our kinds where they are missing, and wait until the server takes objects of them."""
        for kind in KINDS:
            if self.run("get", "crd", f"{kind.plural}.{GROUP}").returncode:
                assert self.apply(crd(kind)) == ""
            # The first write to a new kind can take some seconds.
            wait_until(
                lambda kind=kind: self.run("get", f"{kind.plural}.{GROUP}").returncode == 0,  # type: ignore[misc]
                f"{kind.plural} are served",
            )


def cluster() -> Cluster:
    """Return the cluster of the tests. Skips, or fails in continuous integration, without one."""
    kubeconfig = KUBECONFIG or missing("Kubernetes", "set WEIGHTLIFT_TEST_KUBECONFIG to a throw-away cluster's kubeconfig")
    return Cluster(kubeconfig, program("kubectl", package="kubernetes-client"))
