"""Writes the Helm chart from the kustomizations: `python k8s/system/chart.py`.

One set of manifests is kept by hand. The chart is their rendering, in which image, replicas and namespace are values; a test
renders the chart and compares.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHART = HERE / "chart"
IMAGE, NAMESPACE = "example.com/weightlift:0.1.0", "weightlift-system"
_UNBOUND = re.compile(r"^( *)- name: WEIGHTLIFT_ALLOW_UNBOUND_AGENTS\n +value: .*\n", re.MULTILINE)
_IF_UNBOUND, _IF_BOUND, _IF_LABELS, _END = (
    f"{{{{- {each} }}}}\n"
    for each in ("if .Values.allowUnboundAgents", "if not .Values.allowUnboundAgents", "if .Values.nodeLabels", "end")
)
_VALUES = f"""\
# The image of controller and agents: yours, from `make image`.
image: {IMAGE}
# Controllers: one leads, the others wait.
replicas: 2
# For clusters without ValidatingAdmissionPolicy or without the node's name in tokens (before Kubernetes 1.30). Any agent can
# then write the status of any node.
allowUnboundAgents: false
# Lets the controller label nodes, for pools with `nodeLabels: true`. It may then change any field of any Node.
nodeLabels: false
"""
_NOTES = """\
Agents mount a directory of their nodes, so the namespace needs the pod security level `privileged`:
  kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged
Before `helm upgrade`, since Helm leaves kinds as they are: kubectl apply --server-side --force-conflicts -f crds
Next: a CachePool and a ModelCache, see docs/cluster.md.
"""


def chart() -> dict[Path, str]:
    """Return the path below the chart and the text of each of its files."""
    plain = rendered(HERE / "base")
    unbound, labelling = (rendered(HERE / "overlays" / each) for each in ("unbound-agents", "node-labels"))
    version = IMAGE.rpartition(":")[2]
    about = {
        "apiVersion": "v2",
        "name": "weightlift",
        "description": "Brings model weights to the nodes of a cluster before pods ask for them",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.26-0",
    }
    files = {Path("Chart.yaml"): _text(about), Path("values.yaml"): _VALUES, Path("templates/NOTES.txt"): _NOTES}
    everywhere = {_identity(each): each for each in unbound}
    for resource in plain:
        kind, name = _identity(resource)
        if kind == "CustomResourceDefinition":
            files[Path(f"crds/{name}.yaml")] = _text(resource)
        elif kind != "Namespace":  # Helm makes its own, with --create-namespace
            files[_file(resource)] = _template(resource, everywhere.get((kind, name)))
    base = [_identity(each) for each in plain]
    for resource in labelling:
        if _identity(resource) not in base:
            files[_file(resource)] = _IF_LABELS + _template(resource, resource) + _END
    return files


def rendered(directory: Path) -> list[dict[str, Any]]:
    """Return the resources of a kustomization. Raises CalledProcessError."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", directory], capture_output=True, text=True, check=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


def _template(resource: dict[str, Any], unbound: dict[str, Any] | None) -> str:
    """Return the template of a resource. `unbound` is its form for agents that are not bound to nodes; None: it is left out."""
    text = _text(unbound or resource)
    if "{{" in text:
        raise ValueError(f"{_identity(resource)} contains what Helm would read as an action")
    text = text.replace(IMAGE, "{{ .Values.image }}").replace(NAMESPACE, "{{ .Release.Namespace }}")
    if resource["kind"] == "Deployment":
        text = text.replace(f"  replicas: {resource['spec']['replicas']}\n", "  replicas: {{ .Values.replicas }}\n")
        text = _UNBOUND.sub(lambda match: _IF_UNBOUND + match[0] + _END, text)
    return text if unbound is not None else _IF_BOUND + text + _END


def _file(resource: dict[str, Any]) -> Path:
    kind, name = _identity(resource)
    return Path(f"templates/{kind.lower()}-{name}.yaml")


def _identity(resource: dict[str, Any]) -> tuple[str, str]:
    return resource["kind"], resource["metadata"]["name"]


def _text(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=10_000)


if __name__ == "__main__":
    for path, text in chart().items():
        (CHART / path).parent.mkdir(parents=True, exist_ok=True)
        (CHART / path).write_text(text)
