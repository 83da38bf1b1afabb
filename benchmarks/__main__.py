"""`python -m benchmarks fetch`, `load`, `store` and `peers`, from the root of a checkout."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.fetching import comparison as fetching
from benchmarks.fetching import scenarios as fetches
from benchmarks.installation import HOME
from benchmarks.loading import comparison as loading
from benchmarks.loading import scenarios as loads
from benchmarks.peers import comparison as peers
from benchmarks.store import comparison as storing
from benchmarks.store import scenarios as stores


class Named(Protocol):
    @property
    def name(self) -> str: ...


Scenario = TypeVar("Scenario", bound=Named)


def main() -> None:
    # SIGTERM cleans up servers, namespaces and directories, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_fetch(commands.add_parser("fetch", help="compare whole fetches: the fetcher, its peers and a bare loop"))
    _add_load(commands.add_parser("load", help="compare loading into memory: the loader, its peers and fio"))
    _add_store(commands.add_parser("store", help="compare fetches from an object store in the same way"))
    _add_peers(commands.add_parser("peers", help="one model for several nodes, from the origin and from each other"))
    arguments = parser.parse_args()
    print({"fetch": _fetch, "load": _load, "store": _store, "peers": _peers}[arguments.command](arguments))


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, fetches.SCENARIOS)
    parser.add_argument("--fetcher", default=_installed_command("fetcher"), help="the command under test")
    lean = "variable that disables hashing or probing in the fetcher, where processor time is compared; repeatable"
    parser.add_argument("--lean", action="append", default=[], metavar="NAME=VALUE", help=lean)


def _add_load(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, loads.SCENARIOS)
    parser.add_argument("--loader", default=_installed_command("loader"), help="the command under test")


def _add_store(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, stores.SCENARIOS)
    parser.add_argument("--fetcher", default=_installed_command("fetcher"), help="the command under test")


def _add_peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=[2, 4, 8], help="numbers of nodes; one alone is measured anyway"
    )
    parser.add_argument("--rate", type=int, default=100, help="Mbit/s of each link, the origin's too")
    parser.add_argument("--size", type=int, default=256, help="MiB of the model")
    parser.add_argument("--crowd", type=int, default=64, help="peers of one node in the last case; 0 for none")
    parser.add_argument("--only", nargs="+", default=[""], help="only cases with one of these words")
    parser.add_argument("--tries", type=int, default=3, help="runs of a case at most, until one is not void")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="tmpfs with a model's size for each node")  # noqa: S108
    parser.add_argument("--report", type=Path, help="Markdown file; default: benchmarks/reports with the date; - for none")


def _add_common(parser: argparse.ArgumentParser, scenarios: Sequence[Scenario]) -> None:
    names = ", ".join(scenario.name for scenario in scenarios)
    parser.add_argument(
        "scenarios", nargs="*", type=_scenario(scenarios), default=scenarios, help=f"scenarios to run, by default all: {names}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--scale", type=Fraction, default=Fraction(1), help="fraction of the real sizes, such as 1/16, for a trial"
    )
    parser.add_argument("--disk", type=Path, default=HOME, help="directory on the disk to measure")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="tmpfs with 5 GB free")  # noqa: S108
    parser.add_argument("--report", type=Path, help="Markdown file; default: benchmarks/reports with the date; - for none")


def _fetch(arguments: argparse.Namespace) -> str:
    options = fetching.Options(
        scenarios=tuple(arguments.scenarios),
        rounds=arguments.rounds,
        scale=float(arguments.scale),
        fetcher=arguments.fetcher,
        lean=tuple(arguments.lean),
        disk=arguments.disk.resolve(),
        memory=arguments.memory,
        target=_target(arguments.report, ""),
    )
    return fetching.compare(options)


def _load(arguments: argparse.Namespace) -> str:
    options = loading.Options(
        scenarios=tuple(arguments.scenarios),
        rounds=arguments.rounds,
        scale=float(arguments.scale),
        loader=arguments.loader,
        disk=arguments.disk.resolve(),
        memory=arguments.memory,
        target=_target(arguments.report, "-load"),
    )
    return loading.compare(options)


def _store(arguments: argparse.Namespace) -> str:
    options = storing.Options(
        scenarios=tuple(arguments.scenarios),
        rounds=arguments.rounds,
        scale=float(arguments.scale),
        fetcher=arguments.fetcher,
        disk=arguments.disk.resolve(),
        memory=arguments.memory,
        target=_target(arguments.report, "-store"),
    )
    return storing.compare(options)


def _peers(arguments: argparse.Namespace) -> str:
    options = peers.Options(
        numbers=sorted(arguments.nodes),
        rate=arguments.rate,
        size=arguments.size,
        crowd=arguments.crowd,
        only=arguments.only,
        tries=arguments.tries,
        memory=arguments.memory,
        target=_target(arguments.report, "-peers"),
    )
    return peers.compare(options)


def _target(arguments: Path | None, suffix: str) -> Path | None:
    if arguments == Path("-"):
        return None
    return arguments or Path(__file__).parent / "reports" / f"{datetime.now(UTC).date().isoformat()}{suffix}.md"


def _installed_command(command: str) -> str:
    return str(Path(sys.executable).with_name(command))


def _scenario(scenarios: Sequence[Scenario]) -> Callable[[str], Scenario]:
    def named(name: str) -> Scenario:
        for scenario in scenarios:
            if scenario.name == name:
                return scenario
        raise argparse.ArgumentTypeError(f"no scenario {name!r}")

    return named


if __name__ == "__main__":
    main()
