"""`python -m fetcher.cli.reference > docs/cli.md`: the reference, made from the options themselves."""

from __future__ import annotations

import sys

from fetcher.cli.parser import COMMANDS
from fetcher.command.parser import section

_POSITIONAL = {
    "fetch": "URI",
    "plan": "URI",
    "key": "URI",
    "list": "",
    "show": "KEY|URI",
    "verify": "[KEY|URI|DIR]",
}


def reference() -> str:
    """The whole document, in Markdown."""
    lines = [
        "# `fetcher` on the command line",
        "",
        "Made by `python -m fetcher.cli.reference > docs/cli.md`; do not edit. A flag wins over its variable. A variable for a",
        "flag that may be repeated holds several values, on lines of their own or separated by commas.",
    ]
    for name, (help_text, options) in COMMANDS.items():
        lines += section(f"fetcher {name} {_POSITIONAL[name]}", help_text, options)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
