"""docs/loader.md, made from the options themselves: `python -m docs.generator` writes it."""

from __future__ import annotations

from fetcher.command.parser import section
from loader.cli.parser import COMMANDS, POSITIONAL

_INTRODUCTION = """\
# `loader` on the command line

A flag wins over its variable. [Loading](loading.md) explains the commands and which files a PATH stands for. [Exit
codes](exit-codes.md) and [metrics](metrics.md) have pages of their own.

Results go to stdout. Everything else goes to stderr.

This page is made from the code by `python -m docs.generator`. Do not edit it."""


def reference() -> str:
    """The whole page, in Markdown."""
    lines = [_INTRODUCTION]
    for name, (help_text, options) in COMMANDS.items():
        lines += section(f"loader {name} {POSITIONAL[name]}", help_text, options)
    return "\n".join(lines) + "\n"
