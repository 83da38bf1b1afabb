"""An option: its flag, its variable, how its text is read. Parser, environment and reference are made from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fetcher.errors import ConfigurationError, FetchError, UsageError


@dataclass(frozen=True, slots=True)
class Option:
    """`name` is the setting's; the flag is `--name-with-dashes`, the variable `PROGRAM_NAME`. A `repeated` one's variable
    holds several values on lines of their own, or separated by commas."""

    name: str
    help: str
    read: Callable[[str], Any] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    repeated: bool = False
    switch: bool = False
    program: str = "fetcher"

    def of(self, program: str) -> Option:
        """The same option of another program."""
        return replace(self, program=program)

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return f"{self.program}_{self.name}".upper()


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option]) -> None:
    """Flags without defaults: what is absent is looked up in the environment by `values`."""
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


def values(options: Sequence[Option], given: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Name → value of every option that is given, by flag else by variable.

    Raises UsageError for a bad flag, ConfigurationError for a bad variable.
    """
    found: dict[str, Any] = {}
    for option in options:
        flag = getattr(given, option.name)
        text = environ.get(option.variable, "").strip()
        if flag is not None:
            found[option.name] = _read(option, flag, option.flag, UsageError)
        elif text:
            found[option.name] = _read(option, _from_variable(option, text), option.variable, ConfigurationError)
    return found


def _from_variable(option: Option, text: str) -> Any:
    if option.switch:
        if text.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
            raise ConfigurationError(f"{option.variable} is neither true nor false: {text!r}")
        return text.lower() in ("1", "true", "yes", "on")
    if option.choices and text not in option.choices:
        raise ConfigurationError(f"{option.variable} is {text!r}; it can be {', '.join(option.choices)}")
    if option.repeated:
        return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]
    return text


def _read(option: Option, raw: Any, name: str, error: type[FetchError]) -> Any:
    if option.switch:
        return bool(raw)
    # `--dest "$DIR"` with DIR unset would otherwise mean the current directory.
    if not all(each.strip() for each in (raw if option.repeated else [raw])):
        raise error(f"{name} is empty; give it a value or leave it out")
    try:
        return tuple(option.read(each) for each in raw) if option.repeated else option.read(raw)
    except FetchError as caught:
        raise error(f"{name}: {caught.message}") from caught
