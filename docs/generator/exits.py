"""docs/exit-codes.md: the error tree as exit codes and reason words."""

from __future__ import annotations

import re
from collections.abc import Iterator

import cluster.allowing
import cluster.client.errors
import cluster.kserve.presence
import cluster.secrets
import fetcher.errors
import loader.errors
from docs.generator.tables import NOTICE, table
from fetcher.errors import FetchError

_INTRODUCTION = """\
# Exit codes and reason words

The exit codes are those of `sysexits.h`. The last line on stderr is one sentence that begins with a reason word. Both
are stable. The code tells whether a retry can succeed. [Troubleshooting](errors.md) says for each word what
to check."""

_MESSAGE = """
## The termination message

The result also goes, as one line of JSON, to `/dev/termination-log` if that file exists, or to the file of
`--termination-log`:

```json
{"reason": "GatedRepo", "message": "...", "retryable": false, "bytes": 0, "seconds": 0.8}
```

`bytes` is the number of bytes received. After a success `reason` is `Completed`, and `fetcher fetch` adds `path`,
`revision` and `cached`. The line is shorter than 3,500 bytes. A longer message is shortened.

## The tree in Python

Each error is a `fetcher.FetchError` with `reason`, `exit_code`, `retryable`, `path` and `sentence()`. `fetcher.errors`
defines:

"""
_ELSEWHERE = {"Completed": ("0", "yes"), "Internal": ("70", "no"), "Interrupted": ("128 + signal", "yes")}
"""Words that are no error of the tree: a success, a bug, a signal."""


def descendants(error: type[FetchError]) -> Iterator[type[FetchError]]:
    """All classes below `error` that people meet, in the order of their definition: those of the agent stay in its process."""
    for child in error.__subclasses__():
        if not child.__module__.startswith(("cluster.agent.", "tests.")):
            yield child
        yield from descendants(child)


def words() -> dict[str, tuple[str, str]]:
    """Reason word → exit code, and whether running the same command again may help. In the order of the codes."""
    found = dict(_ELSEWHERE)
    for error in descendants(FetchError):
        if error.reason != FetchError.reason:
            found[error.reason] = (str(error.exit_code), "yes" if error.retryable else "no")
    return dict(sorted(found.items(), key=lambda item: (int(item[1][0].split()[0]), item[0])))


def exit_codes() -> str:
    """The page, in Markdown."""
    by_code: dict[tuple[str, str], list[str]] = {}
    for word, ending in words().items():
        by_code.setdefault(ending, []).append(f"[`{word}`](errors.md#{word.lower()})" if word != "Completed" else f"`{word}`")
    rows = [(code, ", ".join(names), "" if code == "0" else again) for (code, again), names in by_code.items()]
    lines = [_INTRODUCTION, "", NOTICE, "", *table(("exit code", "reason words", "run again?"), rows), _MESSAGE]
    lines[-1] += _drawn(fetcher.errors.__doc__) + "\n\n`loader.errors` adds:\n\n" + _drawn(loader.errors.__doc__)
    lines[-1] += "\n\n`cluster.client.errors` adds:\n\n" + _drawn(cluster.client.errors.__doc__)
    return "\n".join(lines) + "\n"


def _drawn(docstring: str | None) -> str:
    """The tree that a module's docstring draws."""
    tree = re.findall(r"^    (\S.*|[│├└ ].*)$", docstring or "", re.MULTILINE)
    return "\n".join(["```text", *tree, "```"])
