"""Mappings that are replaced and never changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def only(values: Mapping[K, V], keys: Collection[K]) -> dict[K, V]:
    """Return `values` of these keys."""
    return {key: each for key, each in values.items() if key in keys}


def without(values: Mapping[K, V], key: K) -> dict[K, V]:
    """Return `values` without that of one key."""
    return {name: each for name, each in values.items() if name != key}
