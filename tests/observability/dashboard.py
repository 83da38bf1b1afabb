"""The dashboard's queries as Grafana sends them, for all instances."""

from __future__ import annotations

import json
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / "k8s" / "observability"
DASHBOARD = DIRECTORY / "dashboard.json"

_VARIABLES = {"$instance": ".*", "$__rate_interval": "10s"}


def expressions() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [_filled_in(target["expr"]) for panel in panels for target in panel.get("targets", ())]


def _filled_in(expression: str) -> str:
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression
