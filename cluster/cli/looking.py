"""The objects of a cluster, read once for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

from cluster.cli.overview import Overview, overview_of
from cluster.client import Api, ApiAccess, Forbidden, Missing, endpoint_of, in_cluster, of_kubeconfig
from cluster.resources import MODEL_CACHE, NODE_CACHE, Kind, Resource

S = TypeVar("S")
T = TypeVar("T")


def access_of(kubeconfig: Path | None, environ: Mapping[str, str]) -> ApiAccess:
    """Return the access of a kubeconfig: the given one, else KUBECONFIG's, else ~/.kube/config, else that of the pod.

    Raises ConfigurationError.
    """
    if kubeconfig is not None:
        return of_kubeconfig(kubeconfig)
    if listed := [Path(each) for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each]:
        return of_kubeconfig(*([each for each in listed if each.exists()] or listed))
    usual = Path(environ.get("HOME", "/")) / ".kube" / "config"
    return of_kubeconfig(usual) if usual.exists() else in_cluster(environ)


async def look(access: ApiAccess, *, namespace: str = "", model: str = "") -> Overview:
    """Read the cluster: all ModelCaches, or those of a namespace, or one. Raises Missing, ApiError.

    Who may not read NodeCaches sees the models alone, and is told so.
    """
    problems: list[str] = []
    async with Api(access, manager="weightlift-status") as api:
        if model:
            models = [MODEL_CACHE.read(await api.get(endpoint_of(MODEL_CACHE), model, namespace))]
        else:
            models = await _all(api, MODEL_CACHE, namespace, problems)
        try:
            nodes = await _all(api, NODE_CACHE, "", problems)
        except Forbidden as error:
            nodes = []
            problems.append(f"nodes are not shown: {error.message}")
    return overview_of(models, nodes, problems)


async def _all(api: Api, kind: Kind[S, T], namespace: str, problems: list[str]) -> list[Resource[S, T]]:
    """Return all objects of a kind. One that this version cannot read is a problem, and not there."""
    found: list[Resource[S, T]] = []
    try:
        async with aclosing(api.pages(endpoint_of(kind), namespace)) as pages:
            async for page in pages:
                for item in page.items:
                    _take(kind, item, found, problems)
    except Missing:
        raise Missing(
            f"this cluster has no {kind.plural}: weightlift is not installed; kubectl apply -k k8s/system/base installs it",
            code=404,
        ) from None
    return found


def _take(kind: Kind[S, T], item: Mapping[str, Any], found: list[Resource[S, T]], problems: list[str]) -> None:
    try:
        found.append(kind.read(item))
    except ValueError as error:
        problems.append(f"{kind.name} {item['metadata'].get('name')} is of another version, and cannot be read: {error}")
