"""Which tests run one after the other when several run at once: those of a module, and those that share more."""

from __future__ import annotations

_SHARED = {
    "tests/cluster/system/test_on_a_node.py": "the image",
    "tests/cluster/": "the control plane",  # a controller acts on all of a cluster
    "tests/k8s/": "the image",  # it is built once
}
_LONGEST = ("the control plane", "the image")


def lane_of(test: str) -> str:
    """Return what a test must not be run beside: the name that it shares with the other tests of its lane."""
    module = test.partition("::")[0]
    return next((lane for beginning, lane in _SHARED.items() if module.startswith(beginning)), module)


def rank(test: str) -> int:
    """Return the place of a test's lane in the order in which lanes begin."""
    lane = lane_of(test)
    return _LONGEST.index(lane) if lane in _LONGEST else len(_LONGEST)
