"""The options of the controller: its flags, its variables, and their defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cluster.controller.admitting import CLAIM_SOURCES
from cluster.controller.daemon_set import Agents
from cluster.controller.resolving import Means
from cluster.controller.running import Config
from cluster.daemon import ALLOW_LOOPBACK, HUB_ENDPOINT, KSERVE_NAMESPACE, KUBECONFIG, REPORTING
from cluster.names import PEER_SECRET
from cluster.resources.pool import PREFIX
from cluster.ways import ways
from fetcher.command.options import Option
from fetcher.errors import UsageError
from fetcher.quantities import parse_number, parse_seconds


def _prefix(text: str) -> str:
    if not re.fullmatch(PREFIX, text):
        raise UsageError(f"--claim-sources {text} is no beginning of URIs; write it up to a /, such as hf://org/")
    return text


OPTIONS = tuple(
    each.of("weightlift")
    for each in (
        Option("image", "the container image of the agents", metavar="IMAGE"),
        Option(
            "namespace", "the namespace of controller and agents (default: that of the pod or the kubeconfig)", metavar="NAME"
        ),
        Option("service_account", "the controller's account, for messages (default weightlift-controller)", metavar="NAME"),
        KUBECONFIG,
        Option("identity", "the name of this process in the Lease (default: the host's, and a number)", metavar="NAME"),
        Option("lease", "the Lease by which one of several controllers leads (default weightlift-controller)", metavar="NAME"),
        Option(
            "peer_secret",
            "the Secret with the authority of nodes that are peers (default weightlift-peer-authority)",
            metavar="NAME",
        ),
        HUB_ENDPOINT,
        Option(
            "allow_unbound_agents",
            "run where no admission policy binds agents to their nodes, or tokens do not name nodes (before Kubernetes 1.30)",
            switch=True,
        ),
        ALLOW_LOOPBACK,
        Option(
            "claim_sources",
            "a beginning of URIs, up to a /, whose models may be fetched into claims (default hf://); may be repeated",
            _prefix,
            "PREFIX",
            repeated=True,
        ),
        Option(
            "agent_patience",
            "how long an agent may show no sign of life before its node leaves the counts (default 5m)",
            parse_seconds,
            "DURATION",
        ),
        Option(
            "status_interval", "the shortest time between two statuses of one object (default 5s)", parse_seconds, "DURATION"
        ),
        Option(
            "kserve",
            "off (default); manager: also act on KServe's LocalModelCaches, in the place of KServe's own manager",
            choices=("off", "manager"),
        ),
        KSERVE_NAMESPACE,
        Option(
            "webhook_certificates",
            "with --kserve manager, answer the API server's questions about caches and services by the certificate tls.crt and "
            "the key tls.key in this directory, read again when they change (default: no webhooks)",
            Path,
            "DIR",
        ),
        Option("webhook_port", "the port of the webhooks (default 9443)", partial(parse_number, 0, 65535), "PORT"),
        Option("webhook_address", "the address of the webhooks (default: any)", metavar="ADDRESS"),
        *REPORTING,
    )
)


def config_from(options: Mapping[str, Any], environ: Mapping[str, str], namespace: str) -> Config:
    """Return the configuration. `namespace`: that of the pod or the kubeconfig. Raises UsageError."""
    if "image" not in options:
        raise UsageError("--image is missing; name the image that the agents run, or set WEIGHTLIFT_IMAGE")
    here = options.get("namespace", namespace)
    hub = options.get("hub_endpoint")
    loopback = options.get("allow_loopback", False)
    arguments = ("--allow-loopback",) if loopback else ()
    account = options.get("service_account", "weightlift-controller")
    return Config(
        namespace=here,
        agents=Agents(options["image"], here, arguments, hub, account),
        means=Means(ways(environ, hub), loopback, here, account),
        patience=options.get("agent_patience", 300.0),
        status_interval=options.get("status_interval", 5.0),
        allow_loopback=loopback,
        claim_sources=tuple(options.get("claim_sources", CLAIM_SOURCES)),
        account=account,
        peer_secret=options.get("peer_secret", PEER_SECRET),
        unbound=options.get("allow_unbound_agents", False),
    )
