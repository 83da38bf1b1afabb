"""Begins what the controller does with `--kserve manager`: beside it, the work of KServe's manager of local models, and the
webhooks about them if they have a certificate."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cluster.client import Api
from cluster.client.leading import Leadership
from cluster.controller.admitting import CLAIM_SOURCES
from cluster.kserve.managing import Manager
from cluster.kserve.names import LEADER_LEASE, SYSTEM_NAMESPACE
from cluster.kserve.webhooks import Webhooks
from cluster.kserve.world import Importing
from cluster.together import first_of
from fetcher.certificates import CertificateFiles
from fetcher.events import Noted, Subscriber, Warned

PORT = 9443
"""Of the webhooks, as in other controllers."""


async def managing(api_of: Callable[[], Api], options: Mapping[str, Any], on_event: Subscriber, *, identity: str) -> None:
    """Manage KServe's local models until cancelled. `api_of` makes a connection to the API server.

    Raises NotLeading if another one takes over, ConfigurationError for certificates that cannot be used.
    """
    namespace = options.get("kserve_namespace", SYSTEM_NAMESPACE)
    importing = Importing(
        options["image"],
        options.get("claim_sources", CLAIM_SOURCES),
        options.get("hub_endpoint"),
        allow_loopback=bool(options.get("allow_loopback")),
    )
    async with api_of() as lease_api, api_of() as api:
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
            await first_of(work.observe(), _lead(work, leadership, on_event), *_webhooks(work, options, on_event))
        finally:
            await leadership.release()


async def _lead(work: Manager, leadership: Leadership, on_event: Subscriber) -> None:
    await leadership.acquire()
    on_event(Noted("leadership", f"{leadership.identity} manages KServe's local models"))
    await first_of(leadership.keep(), work.lead())


def _webhooks(work: Manager, options: Mapping[str, Any], on_event: Subscriber) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield the server of webhooks, if there is a certificate for it. Raises ConfigurationError if that cannot be used."""
    directory: Path | None = options.get("webhook_certificates")
    if directory is None:
        return
    files = CertificateFiles(directory / "tls.crt", directory / "tls.key")
    webhooks = Webhooks(files, work.world, lambda text: on_event(Warned("CertificateUnusable", text)))
    listening = partial(_listening, on_event)
    yield webhooks.serve(options.get("webhook_address"), options.get("webhook_port", PORT), listening)


def _listening(on_event: Subscriber, where: str) -> None:
    on_event(Noted("webhooks", f"asked at {where}"))
