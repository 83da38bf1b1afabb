"""The container's termination message: the result in one line, as JSON or as a plain sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

KUBERNETES = Path("/dev/termination-log")
LIMIT = 3500
"""Bytes. The kubelet cuts a termination message at 4,096, and all containers of a pod share 12 KiB."""


def destination(asked: Path | None) -> Path | None:
    """Return the file for the message: the requested one, or Kubernetes' file if that exists."""
    return asked or (KUBERNETES if KUBERNETES.exists() else None)


def destination_of_words(words: Sequence[str], *, started_for: Collection[str], variable: str) -> Path | None:
    """Return the file for the message when the command line cannot be parsed.

    It is None unless the first word is a command of `started_for`, the commands that containers are started for.
    """
    if not words or words[0] not in started_for:
        return None
    return destination_of_variable(variable)


def destination_of_variable(variable: str) -> Path | None:
    """Return the file for the message; an environment variable names the requested one."""
    named = os.environ.get(variable, "").strip()
    return destination(Path(named) if named else None)


def write_message(path: Path | None, fields: Mapping[str, Any], *, plain: bool = False) -> None:
    """Write `fields` to `path`, as JSON or, if `plain`, as a sentence.

    A failure is ignored, since it does not change the outcome. A FIFO without a reader does not block.
    """
    if path is None:
        return
    flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC | (0 if path == KUBERNETES else os.O_CREAT)
    with suppress(OSError):
        descriptor = os.open(path, flags, 0o644)
        try:
            os.write(descriptor, sentence(fields) if plain else encode(fields))
        finally:
            os.close(descriptor)


def sentence(fields: Mapping[str, Any]) -> bytes:
    """Encode the plain sentence `REASON: MESSAGE` in less than `LIMIT` bytes."""
    line = f"{fields['reason']}: {fields['message']}".encode(errors="replace")
    if len(line) >= LIMIT:
        line = line[: LIMIT - len(b"...\n") - 1].decode(errors="ignore").encode() + b"..."
    return line + b"\n"


def encode(fields: Mapping[str, Any]) -> bytes:
    """Encode one line of JSON in less than `LIMIT` bytes; the message is shortened first, then the path."""
    for name in ("message", "path"):
        if len(_line(fields)) >= LIMIT and name in fields:
            spare = LIMIT - len(_line({**fields, name: ""})) - len("...") - 1
            fields = {**fields, name: _shortened(str(fields[name]), spare) + "..."}
    return _line(fields)


def _shortened(text: str, limit: int) -> str:
    """The longest prefix of `text` that takes at most `limit` bytes of JSON."""
    length = 0
    for position, character in enumerate(text):
        length += len(json.dumps(character)) - len('""')
        if length > limit:
            return text[:position]
    return text


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
