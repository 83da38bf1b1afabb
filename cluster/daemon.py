"""Agent and controller as commands: options, the API server, an exit code, and the signal that ends them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.client import ApiAccess, in_cluster, of_kubeconfig
from fetcher.command.common_options import METRICS, PROGRESS, TERMINATION_LOG
from fetcher.command.options import Option, add_options, values
from fetcher.command.parser import Parser
from fetcher.command.running import Report, run_command
from fetcher.command.signals import SIGNALS
from fetcher.command.termination import destination, destination_of_variable
from fetcher.version import VERSION

KUBECONFIG = Option("kubeconfig", "reach the API server by this file (default: as a pod)", Path, "FILE")
HUB_ENDPOINT = Option("hub_endpoint", "the address of a mirror of the Hub", metavar="URL")
ALLOW_LOOPBACK = Option("allow_loopback", "allow sources on this machine, which is for tests", switch=True)
KSERVE_NAMESPACE = Option("kserve_namespace", "the namespace of KServe (default kserve)", metavar="NAME")
REPORTING = (
    *(each for each in METRICS if each.name in ("metrics_port", "metrics_address", "metrics_label")),
    PROGRESS,
    TERMINATION_LOG,
)
"""What both serve and write."""
Work = Callable[[ApiAccess, Mapping[str, Any], Report], None]
"""Does the work until a signal. Gets how the API server is reached, and the options by name."""


def run_daemon(argv: Sequence[str] | None, program: str, description: str, options: Sequence[Option], work: Work) -> int:
    """Run `work` with the options of the command line and the environment. Return the exit code: 0 after a signal."""
    words = sys.argv[1:] if argv is None else list(argv)

    def run(report: Report) -> Mapping[str, Any]:
        chosen = values(options, _parser(program, description, options).parse_args(words), os.environ)
        report.log = destination(chosen.get("termination_log"))
        work(of_kubeconfig(chosen["kubeconfig"]) if "kubeconfig" in chosen else in_cluster(), chosen, report)
        return {"message": "stopped by a signal"}

    return run_command(run, log=destination_of_variable("WEIGHTLIFT_TERMINATION_LOG"), interrupted="nothing had begun")


def stopped_by_signals() -> asyncio.Event:
    """Return what is set by the first signal that ends a command. For a coroutine."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    return stop


def _parser(program: str, description: str, options: Sequence[Option]) -> Parser:
    parser = Parser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"{program} {VERSION}")
    add_options(parser, options)
    return parser
