"""`python -m benchmarks fetch`, from the root of a checkout."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from benchmarks.fetch import Options, compare
from benchmarks.installation import HOME
from benchmarks.scenarios import SCENARIOS, Scenario


def main() -> None:
    # As for Ctrl-C: servers, namespaces and directories are cleared away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="whole fetches: the fetcher, what people use today, and a bare loop")
    names = ", ".join(scenario.name for scenario in SCENARIOS)
    fetch.add_argument("scenarios", nargs="*", type=_scenario, default=SCENARIOS, help=f"all without any; {names}")
    fetch.add_argument("--rounds", type=int, default=5)
    fetch.add_argument("--scale", type=Fraction, default=Fraction(1), help="of the real sizes, such as 1/16, to try the bench")
    fetch.add_argument("--fetcher", default=str(Path(sys.executable).with_name("fetcher")), help="the command under test")
    lean = "of the fetcher where processor time is compared: hashing and probing off; may be repeated"
    fetch.add_argument("--lean", action="append", default=[], metavar="NAME=VALUE", help=lean)
    fetch.add_argument("--disk", type=Path, default=HOME, help="directory on the disk to serve from and to measure")
    fetch.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="tmpfs with 5 GB free")  # noqa: S108
    fetch.add_argument("--report", type=Path, help="Markdown file; default benchmarks/reports/<date>.md; - for none")
    print(compare(_options(parser.parse_args())))


def _options(given: argparse.Namespace) -> Options:
    return Options(
        scenarios=tuple(given.scenarios),
        rounds=given.rounds,
        scale=float(given.scale),
        fetcher=given.fetcher,
        lean=tuple(given.lean),
        disk=given.disk.resolve(),
        memory=given.memory,
        target=None if given.report == Path("-") else given.report or _dated(),
    )


def _dated() -> Path:
    return Path(__file__).parent / "reports" / f"{datetime.now(UTC).date().isoformat()}.md"


def _scenario(name: str) -> Scenario:
    for scenario in SCENARIOS:
        if scenario.name == name:
            return scenario
    raise argparse.ArgumentTypeError(f"no scenario {name!r}")


if __name__ == "__main__":
    main()
