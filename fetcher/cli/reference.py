"""`python -m fetcher.cli.reference > docs/cli.md`: the reference, made from the options themselves."""

from __future__ import annotations

import sys

from fetcher.cli.parser import COMMANDS

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
        lines += [
            "",
            f"## `{f'fetcher {name} {_POSITIONAL[name]}'.strip()}`",
            "",
            help_text.capitalize() + ".",
            "",
        ]
        lines += ["| flag | variable | meaning |", "|---|---|---|"]
        for option in options:
            value = "" if option.switch else " " + (option.metavar or "|".join(option.choices or ("TEXT",)))
            flag = f"{option.flag}{value}".replace("|", "\\|")
            lines.append(f"| `{flag}` | `{option.variable}` | {option.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
