"""`weightlift-controller`: parse the options, reach the API server, lead until a signal or until another one leads."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from cluster.binding import SYSTEM_POLICY, refuse_unbound_agents
from cluster.client import Api, ApiAccess
from cluster.client.leading import Leadership
from cluster.client.patience import patiently
from cluster.controller.figures import metrics_of
from cluster.controller.options import OPTIONS, config_from
from cluster.controller.running import Config, Controller
from cluster.daemon import run_daemon, stopped_by_signals
from cluster.together import first_of
from fetcher.command.publication import with_labels
from fetcher.command.running import Report, with_progress
from fetcher.events import Listening, Noted, Subscriber, Warned
from fetcher.steps import Step, no_step
from fetcher.telemetry.endpoint import Answer, Site, serving
from fetcher.telemetry.exposition import Metric
from fetcher.transport.tls import TlsEventLoop

MANAGER = "weightlift-controller"
"""The field manager of what the controller writes, and the name of its Lease."""
_DESCRIPTION = "Decide which node of the cluster shall have which model, and tell how far that is."


def main(argv: Sequence[str] | None = None, *, step: Step = no_step) -> int:
    """Run the controller and return its exit code: 0 after a signal, 75 if another one leads.

    `step` is called after each write.
    """
    return run_daemon(argv, MANAGER, _DESCRIPTION, OPTIONS, partial(_run, step))


def _run(step: Step, access: ApiAccess, options: Mapping[str, Any], _: Report) -> None:
    config = config_from(options, os.environ, access.namespace)

    def work(on_event: Subscriber) -> None:
        with asyncio.Runner(loop_factory=TlsEventLoop) as runner:
            runner.run(_until_signalled(access, config, options, on_event, step))

    with_progress(options.get("progress", "log"), work)


async def _until_signalled(
    access: ApiAccess, config: Config, options: Mapping[str, Any], on_event: Subscriber, step: Step
) -> None:
    stop = stopped_by_signals()
    identity = options.get("identity") or socket.gethostname()
    # The Lease has a connection of its own: it is renewed also while the other one waits.
    api_of = partial(Api, access, manager=MANAGER, step=step)
    async with api_of() as lease_api, api_of() as api:
        leadership = Leadership(lease_api, name=options.get("lease", MANAGER), namespace=config.namespace, identity=identity)
        api.guard = leadership.check
        controller = Controller(api, config, on_event)
        bound = None if options.get("allow_unbound_agents") else partial(refuse_unbound_agents, api, SYSTEM_POLICY)
        with ExitStack() as stack:
            if "metrics_port" in options:
                site = _site(controller, leadership, options)
                where = stack.enter_context(serving(options.get("metrics_address"), options["metrics_port"], site))
                on_event(Listening(where, site.paths))
            await first_of(
                stop.wait(),
                controller.observe(),
                _lead(controller, leadership, on_event, bound),
                *_beside(api_of, options, identity, on_event),
            )
        await leadership.release()


def _beside(
    api_of: Callable[[], Api], options: Mapping[str, Any], identity: str, on_event: Subscriber
) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield what runs beside the controller."""
    if options.get("kserve", "off") == "manager":
        from cluster.kserve.beside_controller import managing  # late: most controllers never need it

        yield managing(api_of, options, on_event, identity=identity)


async def _lead(
    controller: Controller, leadership: Leadership, on_event: Subscriber, check: Callable[[], Awaitable[None]] | None
) -> None:
    """Lead until another one does. `check` raises if this cluster is not one to act on."""
    if check is not None:
        await patiently(check, on_problem=lambda error: on_event(Warned(error.reason, str(error))))
    await leadership.acquire()
    on_event(Noted("leadership", f"{leadership.identity} leads"))
    await first_of(leadership.keep(), controller.lead())


def _site(controller: Controller, leadership: Leadership, options: Mapping[str, Any]) -> Site:
    def readiness() -> Answer:
        return Answer(200, "ready") if controller.is_synced else Answer(503, "the cluster is not known yet")

    def metrics() -> list[Metric]:
        return metrics_of(controller.figures, leads=leadership.leads())

    return Site(with_labels(metrics, options), {"/readyz": readiness})


if __name__ == "__main__":
    sys.exit(main())
