"""The Job that fetches a model into a claim, and the claim of a template. Pure.

The Job runs in the namespace of its ModelCache: the kubelet gives it the Secret, and the words of its command show none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.controller.actions import rendered
from cluster.controller.fetch_pods import failure_policy, fetch_pod
from cluster.controller.reading import ATTEMPT, HYDRATION, MODEL, RETENTION
from cluster.controller.sharing import reference
from cluster.controller.volumes import CLAIM
from cluster.controller.world import Model
from cluster.names import short
from cluster.resources.model import Auth, ClaimTemplate
from cluster.stores import KEYS, store_of

JOB = "Job"
MOUNT = "/models"
KEPT = 24 * 3600
"""Seconds that a Job which has ended can be looked at. It is longer than any wait for another attempt, whose number it has."""
_SECRETS = "/etc/weightlift/source"
_HEADERS = '{"Authorization": "Bearer $(SOURCE_TOKEN)"}'


@dataclass(frozen=True, slots=True)
class Means:
    """With what a Job fetches: the image, and the address of a mirror of the Hub. `account`: the controller's own."""

    image: str
    hub_endpoint: str | None = None
    account: str = ""


def permission(namespace: str, means: Means) -> str:
    """Return the command by which a namespace lets the controller make Jobs in it."""
    return (
        f"kubectl -n {namespace} create rolebinding weightlift-claims --clusterrole=weightlift-claims "
        f"--serviceaccount={means.account}"
    )


def job_name(model: str, hydration: str, attempt: int) -> str:
    """Return the name of a Job: the same for the same attempt, so that two controllers make one.

    Names of its pods are longer, and have at most 63 characters.
    """
    return f"{model[:30].rstrip('-.')}-fetch-{hydration}-{attempt}".replace(".", "-")


def job(
    model: Model, claim: str, hydration: str, attempt: int, parts: int, means: Means, *, resolved: str | None = None
) -> dict[str, Any]:
    """Return the Job of one attempt, which Kubernetes removes with its ModelCache, or a day after its end.

    It fetches the revision `resolved`, and what the source has by then if that is None.
    """
    metadata = model.metadata
    labels = {
        "app.kubernetes.io/name": "weightlift",
        "app.kubernetes.io/component": "hydration",
        HYDRATION: "true",
        MODEL: short(metadata.name),
    }
    indexed = {"completionMode": "Indexed", "completions": parts, "parallelism": parts} if parts > 1 else {}
    document = {
        "apiVersion": "batch/v1",
        "kind": JOB,
        "metadata": {
            "name": job_name(metadata.name, hydration, attempt),
            "namespace": metadata.namespace,
            "labels": labels,
            "annotations": {MODEL: metadata.name, HYDRATION: hydration, ATTEMPT: str(attempt)},
            "ownerReferences": [_owner(model)],
        },
        "spec": {
            "backoffLimit": 3 * parts,
            "ttlSecondsAfterFinished": KEPT,
            "podFailurePolicy": failure_policy(),
            **indexed,
            "template": {"metadata": {"labels": labels}, "spec": _pod(model, claim, parts, labels, means, resolved)},
        },
    }
    return rendered(document)


def template_claim(model: Model, template: ClaimTemplate, request: str) -> dict[str, Any]:
    """Return the claim of a template. It has no owner: whether it goes with its ModelCache is for `retention` to say."""
    metadata = model.metadata
    storage_class = {"storageClassName": template.storage_class_name} if template.storage_class_name is not None else {}
    document = {
        "apiVersion": "v1",
        "kind": CLAIM,
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": {HYDRATION: "true"},
            "annotations": {MODEL: metadata.name, RETENTION: template.retention},
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": request}},
            **storage_class,
        },
    }
    return rendered(document)


def _owner(model: Model) -> Mapping[str, Any]:
    return {
        "apiVersion": "weightlift.dev/v1alpha1",
        "kind": "ModelCache",
        "name": model.metadata.name,
        "uid": model.metadata.uid,
        "controller": True,
    }


def _pod(model: Model, claim: str, parts: int, labels: Mapping[str, str], means: Means, resolved: str | None) -> dict[str, Any]:
    auth = model.spec.auth
    environment, secrets, secret_mounts = _credentials(model.spec.source.uri, auth)
    hub = [{"name": "HF_ENDPOINT", "value": means.hub_endpoint}] if means.hub_endpoint else []
    pod = fetch_pod(
        means.image,
        "fetcher",
        _words(model, parts, resolved),
        [*hub, *environment],
        claim,
        {"mountPath": MOUNT},
        account=auth.service_account_name if auth is not None else None,
        secrets=secrets,
        secret_mounts=secret_mounts,
    )
    apart = {
        "maxSkew": 1,  # two pods on one node share its link
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": dict(labels)},
    }
    return {**pod, **({"topologySpreadConstraints": [apart]} if parts > 1 else {})}


def _words(model: Model, parts: int, resolved: str | None) -> list[str]:
    """Return the words of the command. Kubernetes would replace $(NAME) in them by a variable, which may be a credential."""
    ref, spec = reference(model), model.spec
    require = spec.verification.require if spec.verification is not None else "None"
    words = ["fetch", ref.uri, f"--cache-dir={MOUNT}"]
    words += [f"--revision={ref.revision}"] if ref.revision is not None else []
    words += [f"--include={each}" for each in ref.include] + [f"--exclude={each}" for each in ref.exclude]
    words += {"None": [], "Checksum": ["--require-checksums"], "Digest": ["--require-digests"]}[require]
    if resolved is not None:
        words += [f"--resolved={resolved}"]
    elif spec.refresh_policy == "OnChange":
        words += ["--refresh=on-change"]
    words += [f"--parts={parts}"] if parts > 1 else []
    return [each.replace("$", "$$") for each in words]


def _credentials(uri: str, auth: Auth | None) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the variables, volumes and mounts by which `fetcher` finds the credential of a ModelCache."""
    if auth is None or auth.service_account_name is not None:
        return [], [], []
    store = store_of(uri)
    if auth.secret_key_ref is not None:
        return _token(store, uri, auth.secret_key_ref.name, auth.secret_key_ref.key), [], []
    secret = auth.secret_ref.name if auth.secret_ref is not None else ""
    if store == "https":
        return _token(store, uri, secret, "token"), [], []
    if store == "oci":
        variable = {"name": "DOCKER_CONFIG", "value": _SECRETS}
        return [variable], *_file(secret, ".dockerconfigjson", "config.json")
    variables = [_variable(key, secret, key, optional=True) for key in KEYS[store] if not key.endswith("_JSON")]
    if store == "gs":
        variables.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{_SECRETS}/key.json"})
        return variables, *_file(secret, "GOOGLE_APPLICATION_CREDENTIALS_JSON", "key.json")
    return variables, [], []


def _token(store: str, uri: str, secret: str, key: str) -> list[Any]:
    if store == "hf":
        return [_variable("HF_TOKEN", secret, key)]
    host = uri.partition("://")[2].partition("/")[0].partition(":")[0]
    return [_variable("SOURCE_TOKEN", secret, key), {"name": f"{host}-headers", "value": _HEADERS}]


def _variable(name: str, secret: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _file(secret: str, key: str, path: str) -> tuple[list[Any], list[Any]]:
    items = [{"key": key, "path": path}]
    volume = {"name": "source", "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}
    return [volume], [{"name": "source", "mountPath": _SECRETS, "readOnly": True}]
