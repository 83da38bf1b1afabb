"""The text of docs/loader.md, generated from the options. `python -m docs.generator` writes the file."""

from __future__ import annotations

from fetcher.command.parser import section
from loader.cli.parser import COMMANDS, POSITIONAL

_INTRODUCTION = """\
# `loader` on the command line

A flag takes precedence over its environment variable. [Loading](loading.md) explains the commands, and which files a PATH
selects. See also [exit codes](exit-codes.md) and [metrics](metrics.md).

Results go to stdout. Everything else goes to stderr.

This page is generated from the code by `python -m docs.generator`. Do not edit it."""


def reference() -> str:
    """Return the whole page as Markdown."""
    lines = [_INTRODUCTION]
    for name, (help_text, options) in COMMANDS.items():
        lines += section(f"loader {name} {POSITIONAL[name]}", help_text, options)
    return "\n".join(lines) + "\n"
