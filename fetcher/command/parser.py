"""The words of a command line, and the reference in Markdown, both made from the commands and their options."""

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
"""Name → what it does, and its options."""


class Parser(argparse.ArgumentParser):
    """argparse, with our exit code and last line for a wrong command."""

    def __init__(self, **words: Any) -> None:
        # An abbreviation that works today would break a script on the day a second flag begins like it.
        super().__init__(allow_abbrev=False, **words)

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse does, which ignores that a device is full or that nobody reads: here --help then ends as results do."""
        if file is sys.stdout and message:
            print_result(message.rstrip("\n"))
        else:
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parser_of(
    program: str, description: str, commands: Commands, add_positional: Callable[[argparse.ArgumentParser, str], None]
) -> Parser:
    """A program's whole command line; `add_positional` knows what each command wants besides options."""
    parser = Parser(prog=program, description=description)
    parser.add_argument("--version", action="version", version=f"{program} {VERSION}")
    found = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (help_text, options) in commands.items():
        command = found.add_parser(name, help=help_text, description=help_text[:1].upper() + help_text[1:] + ".")
        add_positional(command, name)
        add_options(command, options)
    return parser


def section(usage: str, help_text: str, options: tuple[Option, ...]) -> list[str]:
    """A command's part of the reference, line by line."""
    lines = ["", f"## `{usage.strip()}`", "", help_text[:1].upper() + help_text[1:] + ".", ""]
    lines += ["| flag | variable | meaning |", "|---|---|---|"]
    for option in options:
        value = "" if option.switch else " " + (option.metavar or "|".join(option.choices or ("TEXT",)))
        flag = f"{option.flag}{value}".replace("|", "\\|")
        lines.append(f"| `{flag}` | `{option.variable}` | {option.help} |")
    return lines


def metrics_table(metrics: Iterable[Metric]) -> list[str]:
    """The part of the reference on what a command publishes, line by line."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in metrics:
        labels = sorted({f"`{label}`" for sample in metric.samples for label in sample.labels})
        lines.append(f"| `{metric.name}` | {metric.kind} | {', '.join(labels)} | {metric.help} |")
    return lines
