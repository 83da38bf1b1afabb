"""A throw-away cluster, named by WEIGHTLIFT_TEST_KUBECONFIG: kind, k3d, envtest, or whatever serves the API."""

from __future__ import annotations

import fcntl
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
        """Install our kinds, in the place of older ones, and wait until the server takes objects of them.

        One process at a time: two lanes of tests may come to a new cluster at once.
        """
        with open(self.kubeconfig, "rb") as shared:
            fcntl.flock(shared, fcntl.LOCK_EX)
            self._serve_kinds()

    def _serve_kinds(self) -> None:
        outdated = [kind for kind in KINDS if self._applied(f"{kind.plural}.{GROUP}") != crd(kind)["spec"]]
        for kind in outdated:
            assert self.apply(crd(kind)) == ""
        if outdated:
            self.settle(*(f"{kind.plural}.{GROUP}" for kind in KINDS))

    def _applied(self, name: str) -> Any:
        """Return the specification of a CRD as it was applied; what the server keeps of it may lack fields. None without it."""
        applied = self.run("apply", "view-last-applied", "crd", name, "-o", "json")
        return json.loads(applied.stdout)["spec"] if applied.returncode == 0 else None

    def settle(self, *plurals: str) -> None:
        """Wait until new kinds are served for good: half a second after its first answer the server refuses them again."""
        looks = 0

        def served() -> bool:
            nonlocal looks
            looks = looks + 1 if self.run("get", ",".join(plurals)).returncode == 0 else 0
            return looks >= _LOOKS

        wait_until(served, f"{', '.join(plurals)} are served", timeout=100)


_LOOKS = 10
"""In a row. Each takes some tenths of a second."""


def cluster() -> Cluster:
    """Return the cluster of the tests. Skips, or fails in continuous integration, without one."""
    kubeconfig = KUBECONFIG or missing("Kubernetes", "set WEIGHTLIFT_TEST_KUBECONFIG to a throw-away cluster's kubeconfig")
    return Cluster(kubeconfig, program("kubectl", package="kubernetes-client"))
