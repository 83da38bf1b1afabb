"""The reference pages, made from the code: `python -m docs.generator` writes them. A test says that they are current."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.agent.reference import reference as agent_reference
from cluster.controller.reference import reference as controller_reference
from docs.generator.environment import environment
from docs.generator.events import events
from docs.generator.exits import exit_codes
from docs.generator.manifest import manifest
from docs.generator.metrics import metrics
from fetcher.cli.reference import reference as fetcher_reference
from loader.cli.reference import reference as loader_reference

DOCS = Path(__file__).parents[1]
PAGES: Mapping[str, Callable[[], str]] = {
    "cli.md": fetcher_reference,
    "loader.md": loader_reference,
    "agent.md": agent_reference,
    "controller.md": controller_reference,
    "environment.md": environment,
    "exit-codes.md": exit_codes,
    "events.md": events,
    "metrics.md": metrics,
    "manifest.md": manifest,
}
"""The name of a page in docs/, and the function that returns its text."""
