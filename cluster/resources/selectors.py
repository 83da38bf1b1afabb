"""Label selectors with the meaning that Kubernetes gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from cluster.resources.schema import Rule, Schema


@dataclass(frozen=True, slots=True)
class Requirement:
    """A condition on one label."""

    key: Annotated[str, Schema(least=1, most=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[Annotated[str, Schema(most=63)], ...], Schema(most=64)] = ()

    RULES: ClassVar = (
        Rule(
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "In and NotIn need values, Exists and DoesNotExist take none",
        ),
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":  # a label that is absent has none of the values
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All conditions must be met. An empty selector matches everything."""

    match_labels: Annotated[Mapping[str, Annotated[str, Schema(most=63)]], Schema(most=32)] = field(default_factory=dict)
    match_expressions: Annotated[tuple[Requirement, ...], Schema(most=32)] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            each.matches(labels) for each in self.match_expressions
        )

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The selector as conditions only, which is the form of node affinity."""
        exact = tuple(Requirement(key, "In", (value,)) for key, value in sorted(self.match_labels.items()))
        return exact + self.match_expressions
