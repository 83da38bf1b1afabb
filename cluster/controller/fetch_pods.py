"""The pod of a Job that fetches into a claim: restricted, and with the ends after which another one would fail too. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CONTAINER = "fetch"
_USER = 65532
_FINAL = [64, 65, 66, 70, 73, 77, 78]
"""Exit codes for which the same pod would fail again (docs/exit-codes.md): another attempt comes later."""


def failure_policy() -> dict[str, Any]:
    """Return the policy of a Job whose pods are `fetch_pod`s."""
    return {
        "rules": [
            # Drained, preempted or evicted: no failure. The next pod resumes from the journal.
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": _FINAL}},
        ]
    }


def fetch_pod(
    image: str,
    command: str,
    words: Sequence[str],
    environment: Sequence[Mapping[str, Any]],
    claim: str,
    mount: Mapping[str, Any],
    *,
    account: str | None = None,
    secrets: Sequence[Mapping[str, Any]] = (),
    secret_mounts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the specification of a pod that runs `command`, with `claim` mounted as `mount` says."""
    return {
        "restartPolicy": "Never",  # required by podFailurePolicy, and each pod keeps its termination message
        **({"serviceAccountName": account} if account else {}),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": [command],
                "args": list(words),
                "env": list(environment),
                "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": "models", **mount}, *secret_mounts],
            }
        ],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": claim}}, *secrets],
    }
