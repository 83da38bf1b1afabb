"""Begins what the controller does with `--kserve manager`: beside it, the work of KServe's manager of local models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.client import Api, ApiAccess
from cluster.client.leading import Leadership
from cluster.controller.admitting import CLAIM_SOURCES
from cluster.kserve.managing import Manager
from cluster.kserve.names import LEADER_LEASE, SYSTEM_NAMESPACE
from cluster.kserve.world import Importing
from cluster.together import first_of
from fetcher.events import Noted, Subscriber, Warned


async def managing(access: ApiAccess, options: Mapping[str, Any], on_event: Subscriber, *, identity: str, manager: str) -> None:
    """Manage KServe's local models until cancelled. Raises NotLeading if another one takes over."""
    namespace = options.get("kserve_namespace", SYSTEM_NAMESPACE)
    importing = Importing(
        options["image"],
        options.get("claim_sources", CLAIM_SOURCES),
        options.get("hub_endpoint"),
        allow_loopback=bool(options.get("allow_loopback")),
    )
    async with Api(access, manager=manager) as lease_api, Api(access, manager=manager) as api:
        leadership = Leadership(lease_api, name=LEADER_LEASE, namespace=namespace, identity=identity)
        api.guard = leadership.check
        work = Manager(
            api,
            namespace,
            importing,
            on_note=lambda subject, text: on_event(Noted(subject, text)),
            on_problem=lambda reason, text: on_event(Warned(reason, text)),
        )
        try:
            await first_of(work.observe(), _lead(work, leadership, on_event))
        finally:
            await leadership.release()


async def _lead(work: Manager, leadership: Leadership, on_event: Subscriber) -> None:
    await leadership.acquire()
    on_event(Noted("leadership", f"{leadership.identity} manages KServe's local models"))
    await first_of(leadership.keep(), work.lead())
