"""The CRDs of our kinds, made from their types: `python -m cluster.resources.crds` writes `k8s/crds`.

They carry no finalizers, and removing them removes no bytes from any node.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.resources.artifact import CACHE_ARTIFACT
from cluster.resources.kinds import GROUP, VERSION, Column, Kind
from cluster.resources.model import MODEL_CACHE
from cluster.resources.node import NODE_CACHE
from cluster.resources.pool import CACHE_POOL
from cluster.resources.schema import schema_of

KINDS: tuple[Kind[Any, Any], ...] = (CACHE_POOL, MODEL_CACHE, CACHE_ARTIFACT, NODE_CACHE)
DIRECTORY = Path(__file__).parents[2] / "k8s" / "crds"


def crd(kind: Kind[Any, Any]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of `kind`."""
    status = schema_of(kind.status, defaults=False)
    schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(kind.spec, defaults=True),
            "status": status,
        },
    }
    names = {"kind": kind.name, "listKind": f"{kind.name}List", "plural": kind.plural, "singular": kind.name.lower()}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(each) for each in kind.columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {**names, "categories": ["weightlift"]},
            "versions": [version],
        },
    }


def files() -> dict[Path, str]:
    """Return the path and the text of each file of `k8s/crds`. JSON is YAML, and its layout needs no library."""
    texts = {DIRECTORY / f"{kind.plural}.yaml": json.dumps(crd(kind), indent=1) + "\n" for kind in KINDS}
    names = json.dumps({"resources": [path.name for path in texts]})
    return {**texts, DIRECTORY / "kustomization.yaml": f"{names}\n"}


def _column(column: Column) -> dict[str, Any]:
    document = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**document, "priority": 1} if column.wide else document


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, text in files().items():
        path.write_text(text)
