"""The options of the agent: its flags, its variables, and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cluster.agent.config import Config
from cluster.agent.fetching import Means
from cluster.daemon import ALLOW_LOOPBACK, HUB_ENDPOINT, KSERVE_NAMESPACE, KUBECONFIG, REPORTING
from cluster.names import PEER_PORT
from cluster.ways import ways
from fetcher.command.options import Option
from fetcher.errors import UsageError
from fetcher.quantities import parse_duration, parse_number, parse_rate, parse_seconds, parse_size
from fetcher.settings import MOST_CONNECTIONS
from fetcher.steps import Step, no_step

MiB = 1024 * 1024
_TIME = "DURATION"

OPTIONS = tuple(
    each.of("weightlift")
    for each in (
        Option("node", "the name of this node, which is that of its NodeCache", metavar="NAME"),
        Option("root", "the directory for models; it must exist", Path, "DIR"),
        Option("namespace", "the namespace of this agent (default: that of the pod or the kubeconfig)", metavar="NAME"),
        Option(
            "service_account", "the service account of this agent, which messages name (default: by the pool)", metavar="NAME"
        ),
        KUBECONFIG,
        HUB_ENDPOINT,
        ALLOW_LOOPBACK,
        Option("memory_limit", "limit of all buffers together (default 256Mi)", parse_size, "SIZE"),
        Option(
            "max_concurrency", "the most connections of a fetch (default 32)", partial(parse_number, 1, MOST_CONNECTIONS), "N"
        ),
        Option("limit_rate", "the limit of a fetch's rate, such as 500M (default: none)", parse_rate, "RATE"),
        Option("min_idle", "the time without use before an artifact may make room (default 10m)", parse_duration, _TIME),
        Option("retry_for", "how long a fetch retries without progress (default 30s)", parse_duration, _TIME),
        Option("orphan_grace", "how long an unwanted artifact keeps its bytes (default 24h)", parse_duration, _TIME),
        Option("scrub_interval", "how often each artifact is read and compared (default 24h)", parse_seconds, _TIME),
        Option("scrub_rate", "the rate of reading for that (default 100Mi)", parse_rate, "RATE"),
        Option("warm_interval", "how often it is checked that what is warm is in memory (default 10s)", parse_seconds, _TIME),
        Option("survey_interval", "how often the root is looked at (default 30s)", parse_seconds, _TIME),
        Option("status_interval", "the shortest time between two statuses (default 10s)", parse_seconds, _TIME),
        Option(
            "recheck_interval",
            "how often that is looked at by which a failed fetch may succeed: its Secret, and KServe's services (default 60s)",
            parse_seconds,
            _TIME,
        ),
        Option("peer_address", "the IP address at which peers reach this node, if its pool has peers on", metavar="IP"),
        Option("peer_port", "the port for that (default 8650)", partial(parse_number, 1, 65535), "PORT"),
        Option("peer_rate", "the limit of the rate at which peers are served (default: none)", parse_rate, "RATE"),
        Option(
            "kserve",
            "off: the node has what its NodeCache says (default); agent: what KServe's LocalModelNode says, in the place of "
            "KServe's own agent",
            choices=("off", "agent"),
        ),
        KSERVE_NAMESPACE,
        Option(
            "kserve_source",
            "with --kserve agent, a beginning of URIs that may be fetched, such as hf:// or https://models.example/; can be "
            "repeated (default hf://, s3:// and gs://)",
            metavar="PREFIX",
            repeated=True,
        ),
        Option(
            "allow_unbound_agents",
            "with --kserve agent, run where no admission policy binds agents to their nodes, or tokens do not name nodes "
            "(before Kubernetes 1.30)",
            switch=True,
        ),
        *REPORTING,
    )
)


def config_from(options: Mapping[str, Any], environ: Mapping[str, str], namespace: str, step: Step = no_step) -> Config:
    """Return the configuration. `namespace`: that of the pod or the kubeconfig. Raises UsageError."""
    for name in ("node", "root"):
        if name not in options:
            raise UsageError(f"--{name} is missing; give it, or set WEIGHTLIFT_{name.upper()}")
    means = Means(
        root=options["root"].absolute(),
        environ=ways(environ, options.get("hub_endpoint")),
        memory_limit=options.get("memory_limit", 256 * MiB),
        min_idle=options.get("min_idle", 600.0),
        retry_for=options.get("retry_for", 30.0),
        max_concurrency=options.get("max_concurrency", 32),
        limit_rate=options.get("limit_rate"),
        step=step,
    )
    return Config(
        node=options["node"],
        namespace=options.get("namespace", namespace),
        service_account=options.get("service_account"),
        means=means,
        allow_loopback=options.get("allow_loopback", False),
        status_interval=options.get("status_interval", 10.0),
        survey_interval=options.get("survey_interval", 30.0),
        recheck_interval=options.get("recheck_interval", 60.0),
        scrub_interval=options.get("scrub_interval", 86400.0),
        scrub_rate=options.get("scrub_rate", 100.0 * MiB),
        warm_interval=options.get("warm_interval", 10.0),
        orphan_grace=options.get("orphan_grace", 86400.0),
        peer_address=options.get("peer_address"),
        peer_port=options.get("peer_port", PEER_PORT),
        peer_rate=options.get("peer_rate"),
    )
