"""Which nodes the nodeAffinity of a volume selects, with the meaning that Kubernetes gives it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.resources import Requirement


def selects(volume: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a volume with the specification `volume` is for the node `name`. Without an affinity it is for none.

    Raises ValueError for an affinity that cannot be read.
    """
    try:
        terms = ((volume.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
        return any(_term_selects(term, name, labels) for term in terms)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"nodeAffinity: {error}") from error


def _term_selects(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False  # a term without conditions selects nothing
    return _all_match(expressions, labels) and _all_match(fields, {"metadata.name": name})


def _all_match(conditions: Iterable[Mapping[str, Any]], values: Mapping[str, str]) -> bool:
    return all(_matches(condition, values) for condition in conditions)


def _matches(condition: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    key, operator, wanted = condition["key"], condition["operator"], tuple(condition.get("values") or ())
    if operator in ("Gt", "Lt"):
        return _compares(operator, values.get(key, ""), wanted)
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise ValueError(f"nodeAffinity: {operator!r} is no operator")
    return Requirement(key, operator, wanted).matches(values)


def _compares(operator: str, value: str, wanted: tuple[str, ...]) -> bool:
    """Compare as integers. What is no integer, or is absent, does not match."""
    try:
        (bound,) = wanted
        return int(value) > int(bound) if operator == "Gt" else int(value) < int(bound)
    except ValueError:
        return False
