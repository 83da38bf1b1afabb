"""docs/events.md: what a subscriber is told."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise

import fetcher.events
from docs.generator.tables import NOTICE, table
from fetcher.events import Event
from fetcher.telemetry.jsonlines import EVERY

_INTRODUCTION = f"""\
# Events

A command reports its work as events. `--progress json` writes each event as one line of JSON on stderr: `event` is its
name, `ts` the Unix time in seconds, and the fields follow. Events that come often (`BytesReceived`, `BytesHashed`,
`BytesDiscarded`, `BytesLoaded`, `ConnectionsActive`) are gathered into one `Progress` line every {EVERY} seconds, with
`phase`, `done`, `total`, `fetched`, `hashed`, `rate` and `connections`.

From Python, `fetcher.fetch(uri, on_event=...)` calls a function with each event. The function must return at once.

Sizes are in bytes, times in seconds, a `rate` in bytes a second. No event holds a credential."""


def events() -> str:
    """The page, in Markdown."""
    lines = [_INTRODUCTION, "", NOTICE]
    for event in _all():
        lines += ["", f"## `{event.__name__}`", *_described(event)]
    return "\n".join(lines) + "\n"


def _all() -> Iterator[type[Event]]:
    """In the order of their definition."""
    for value in vars(fetcher.events).values():
        if inspect.isclass(value) and issubclass(value, Event) and value is not Event:
            yield value


def _described(event: type[Event]) -> Iterator[str]:
    text = event.__doc__ or ""
    if not text.startswith(f"{event.__name__}("):  # what a dataclass without a docstring has
        yield ""
        yield " ".join(inspect.cleandoc(text).split())
    if rows := list(_fields(event)):
        yield ""
        yield from table(("field", "type", "meaning"), rows)


def _fields(event: type[Event]) -> Iterator[tuple[str, str, str]]:
    notes = _notes(event)
    for field in dataclasses.fields(event):
        yield f"`{field.name}`", f"`{field.type}`", notes.get(field.name, "")


def _notes(event: type[Event]) -> dict[str, str]:
    """Field → the text below it in the class."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(event))).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    return {
        above.target.id: str(below.value.value)
        for above, below in pairwise(body)
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }
