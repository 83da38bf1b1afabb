"""Begins what the agent does with `--kserve agent`: beside it, the LocalModelNode of its node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.client import Api, ApiAccess
from cluster.kserve.names import MODELS, SYSTEM_NAMESPACE
from cluster.kserve.node_asking import Asking
from cluster.kserve.node_running import Config, Node
from fetcher.errors import UsageError
from fetcher.events import Noted, Subscriber, Warned

_SOURCES = ("hf://", "s3://", "gs://")
"""What is fetched unless the options say otherwise: stores that a URI cannot make an address of the cluster's own network."""


def config_of(
    options: Mapping[str, Any], *, node: str, root: Path, account: tuple[str, str], environ: Mapping[str, str]
) -> Config:
    """Return the configuration. `environ`: what sources see. Raises UsageError for a root that pods would not find."""
    if root.name != MODELS:
        raise UsageError(
            f"--root {root} does not end in /{MODELS}; with --kserve agent it is the path of the node group and /{MODELS} "
            "after it, where KServe's pods look for models"
        )
    asking = Asking(
        environ,
        tuple(options.get("kserve_source", _SOURCES)),
        account,
        job_namespace="",
        allow_loopback=options.get("allow_loopback", False),
        retry_for=options.get("retry_for", 30.0),
    )
    return Config(
        node,
        root,
        options.get("kserve_namespace", SYSTEM_NAMESPACE),
        asking,
        options.get("survey_interval", 30.0),
        options.get("recheck_interval", 60.0),
        unbound=options.get("allow_unbound_agents", False),
    )


@asynccontextmanager
async def local_models(
    access: ApiAccess, plain: Api, config: Config, on_event: Subscriber, *, manager: str
) -> AsyncIterator[Node]:
    """The node, with the API server that its agent uses."""
    node = Node(
        access,
        plain,
        config,
        manager=manager,
        on_note=lambda subject, text: on_event(Noted(subject, text)),
        on_problem=lambda reason, text: on_event(Warned(reason, text)),
    )
    async with node.api:
        yield node
