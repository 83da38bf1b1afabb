"""`weightlift-agent`: parse the options, reach the API server, run until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from cluster.agent.config import Config
from cluster.agent.options import OPTIONS, config_from
from cluster.agent.running import Agent
from cluster.agent.working import Rendered
from cluster.client import Api, ApiAccess
from cluster.daemon import run_daemon, stopped_by_signals
from cluster.names import AGENT_PORT
from cluster.together import first_of
from fetcher.command.publication import with_labels
from fetcher.command.running import Report
from fetcher.events import Listening, Subscriber
from fetcher.steps import Step, no_step
from fetcher.telemetry import Kind, subscribed
from fetcher.telemetry.endpoint import Answer, Site, serving
from fetcher.transport.tls import TlsEventLoop

MANAGER = "weightlift-agent"
"""The field manager of what the agent writes."""
Work = Callable[[], Coroutine[Any, Any, None]]
_DESCRIPTION = "Make this node have the models that its NodeCache says, within the limits of its pool."


def main(argv: Sequence[str] | None = None, *, step: Step = no_step) -> int:
    """Run the agent and return its exit code: 0 after a signal.

    `step` is called after each write to the API server, and after each change of the root.
    """
    return run_daemon(argv, MANAGER, _DESCRIPTION, OPTIONS, partial(_run, step))


def _run(step: Step, access: ApiAccess, options: Mapping[str, Any], report: Report) -> None:
    config = config_from(options, os.environ, access.namespace, step)
    kind: Kind = options.get("progress", "log")

    @contextmanager
    def rendered() -> Iterator[Subscriber]:
        """Each fetch has a progress of its own."""
        with subscribed(kind, sys.stderr) as on_event:
            yield report.counting(on_event)

    with subscribed(kind, sys.stderr) as on_event, asyncio.Runner(loop_factory=TlsEventLoop) as runner:
        runner.run(_until_signalled(access, config, options, on_event, rendered))


async def _until_signalled(
    access: ApiAccess, config: Config, options: Mapping[str, Any], on_event: Subscriber, rendered: Rendered
) -> None:
    stop = stopped_by_signals()
    async with (
        Api(access, manager=MANAGER, step=config.means.step) as plain,
        _front(access, plain, config, options, on_event) as (api, beside),
    ):
        agent = Agent(api, config, on_event, rendered)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, agent.scrub_now)
        with ExitStack() as stack:
            site = _site(agent, options)
            where = stack.enter_context(serving(options.get("metrics_address"), options.get("metrics_port", AGENT_PORT), site))
            on_event(Listening(where, site.paths))
            await first_of(agent.run(stop), *(each() for each in beside))


@asynccontextmanager
async def _front(
    access: ApiAccess, plain: Api, config: Config, options: Mapping[str, Any], on_event: Subscriber
) -> AsyncIterator[tuple[Api, Sequence[Work]]]:
    """The API server as the agent sees it, and what runs beside the agent. Raises UsageError."""
    if options.get("kserve", "off") == "off":
        yield plain, ()
        return
    from cluster.kserve.beside_agent import config_of, local_models  # late: most agents never need it

    account = (config.namespace, config.service_account or MANAGER)
    kserve = config_of(options, node=config.node, root=config.root, account=account, environ=config.means.environ)
    async with local_models(access, plain, kserve, on_event, manager=MANAGER) as node:
        yield node.api, (node.run,)


def _site(agent: Agent, options: Mapping[str, Any]) -> Site:
    def readiness() -> Answer:
        missing = agent.missing
        return Answer(200, "ready") if missing is None else Answer(503, missing)

    pages: Mapping[str, Callable[[], Answer]] = {"/readyz": readiness}
    return Site(with_labels(agent.counts.metrics, options), pages)


if __name__ == "__main__":
    sys.exit(main())
