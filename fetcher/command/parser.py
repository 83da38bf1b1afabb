"""The command-line parser and the reference in Markdown, both made from the commands and their options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from fetcher.command.options import Option, add_options
from fetcher.command.results import print_result
from fetcher.errors import UsageError
from fetcher.version import VERSION

if TYPE_CHECKING:
    from fetcher.telemetry.exposition import Metric

Commands = Mapping[str, tuple[str, tuple[Option, ...]]]
"""Name → help text and options."""


class Parser(argparse.ArgumentParser):
    """argparse, with our exit code and last line for a usage error.

    `add` adds the arguments before the first parsing: the arguments of all commands together take 5 ms of every start.
    """

    def __init__(self, *, add: Callable[[Parser], None] | None = None, **settings: Any) -> None:
        # An abbreviation that works today breaks a script when a second flag with the same beginning is added.
        super().__init__(allow_abbrev=False, **settings)
        self._add = add

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        add, self._add = self._add, None
        if add is not None:
            add(self)
        return super().parse_known_args(args, namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print --help as a result: argparse ignores a full device and a closed pipe."""
        if file is sys.stdout and message:
            print_result(message.rstrip("\n"))
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parser_of(
    program: str, description: str, commands: Commands, add_positional: Callable[[argparse.ArgumentParser, str], None]
) -> Parser:
    """Build a program's command line; `add_positional` adds the positional arguments of a command."""
    parser = Parser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"{program} {VERSION}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (help_text, options) in commands.items():

        def add(command: Parser, name: str = name, options: tuple[Option, ...] = options) -> None:
            add_positional(command, name)
            add_options(command, options)

        subparsers.add_parser(name, help=help_text, description=help_text[:1].upper() + help_text[1:] + ".", add=add)
    return parser


def section(usage: str, help_text: str, options: tuple[Option, ...]) -> list[str]:
    """Return a command's section of the reference as lines."""
    lines = ["", f"## `{usage.strip()}`", "", help_text[:1].upper() + help_text[1:] + ".", ""]
    lines += ["| flag | variable | meaning |", "|---|---|---|"]
    for option in options:
        value = "" if option.switch else " " + (option.metavar or "|".join(option.choices or ("TEXT",)))
        flag = f"{option.flag}{value}".replace("|", "\\|")
        lines.append(f"| `{flag}` | `{option.variable}` | {option.help} |")
    return lines


def metrics_table(metrics: Iterable[Metric]) -> list[str]:
    """Return the table of a command's metrics in the reference as lines."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = sorted({f"`{label}`" for sample in metric.samples for label in sample.labels})
        lines.append(f"| `{metric.name}` | {metric.kind} | {', '.join(labels)} | {metric.help} |")
    return lines
