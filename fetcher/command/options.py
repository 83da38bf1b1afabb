"""An option: its flag, its variable and its parser. Command line, environment and reference are made from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fetcher.errors import ConfigurationError, FetchError, UsageError
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """The setting `name` has the flag `--name-with-dashes` and the variable `PROGRAM_NAME`.

    The variable of a `repeated` option holds several values, separated by commas or line breaks. `each`: what one of them is
    called, in the flag.
    """

    name: str
    help: str
    read: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    repeated: bool = False
    switch: bool = False
    program: str = "fetcher"
    each: str | None = None

    def of(self, program: str) -> Option:
        """Return the same option for another program."""
        return replace(self, program=program)

    @property
    def flag(self) -> str:
        return "--" + (self.each or self.name).replace("_", "-")

    @property
    def variable(self) -> str:
        return f"{self.program}_{self.name}".upper()


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Add the flags to `parser` without defaults: `values` looks up absent ones in the environment."""
    for option in options:
        described = f"{option.help} [{option.variable}]"
        if option.switch:
            parser.add_argument(option.flag, action="store_true", default=None, dest=option.name, help=described)
            continue
        parser.add_argument(
            option.flag,
            dest=option.name,
            action="append" if option.repeated else "store",
            choices=option.choices,
            metavar=option.metavar,
            help=described,
        )


def values(options: Sequence[Option], arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return name → value of every option that is set by a flag or, without one, by a variable.

    Raises UsageError for a bad flag, ConfigurationError for a bad variable.
    """
    result: dict[str, Any] = {}
    for option in options:
        flag = getattr(arguments, option.name)
        text = environ.get(option.variable, "").strip()
        if flag is not None:
            result[option.name] = _read(option, flag, option.flag, UsageError)
        elif text:
            result[option.name] = _read(option, _from_variable(option, text), option.variable, ConfigurationError)
    return result


def _from_variable(option: Option, text: str) -> Any:
    if option.switch:
        if text.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
            raise ConfigurationError(f"{option.variable} is {text!r}; write true or false")
        return text.lower() in ("1", "true", "yes", "on")
    if option.choices and text not in option.choices:
        raise ConfigurationError(f"{option.variable} is {text!r}; choose from {', '.join(option.choices)}")
    if option.repeated:
        return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    return text


def _read(option: Option, raw: Any, name: str, error: type[FetchError]) -> Any:
    if option.switch:
        return bool(raw)
    # `--dest "$DIR"` with DIR unset must not mean the current directory.
    if not all(each.strip() for each in (raw if option.repeated else [raw])):
        raise error(f"{name} is empty; give it a value or leave it out")
    try:
        return tuple(option.read(each) for each in raw) if option.repeated else option.read(raw)
    except FetchError as caught:
        raise error(f"{name}: {caught.message}") from caught
