"""The text of docs/cli.md, generated from the options; `python -m docs.generator` writes it."""

from __future__ import annotations

from fetcher.cli.parser import COMMANDS
from fetcher.command.parser import section

_POSITIONAL = {
    "fetch": "URI",
    "plan": "URI",
    "key": "URI",
    "list": "",
    "show": "KEY|URI|DIR",
    "adopt": "DIR",
    "verify": "[KEY|URI|DIR]",
}
_INTRODUCTION = """\
# `fetcher` on the command line

A flag takes precedence over its variable. The variable of a repeatable option holds several values, separated by commas
or line breaks.

`fetcher fetch` prints the artifact's path as the only line on stdout. With `--json` it prints one JSON object: `path`,
`cache_key`, `uri`, `revision`, `files`, `bytes`, `bytes_fetched`, `bytes_reused`, `seconds`, `verified`, `cached`,
`stale`, and with `--warm` also `warm`. The rest goes to stderr. See [exit codes](exit-codes.md) and [metrics](metrics.md).

This page is generated from the code by `python -m docs.generator`. Do not edit it."""


def reference() -> str:
    """Return the whole page in Markdown."""
    lines = [_INTRODUCTION]
    for name, (help_text, options) in COMMANDS.items():
        lines += section(f"fetcher {name} {_POSITIONAL[name]}", help_text, options)
    return "\n".join(lines) + "\n"
