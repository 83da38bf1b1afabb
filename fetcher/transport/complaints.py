"""Extracts a server's own text about an error for use in a message: short, printable, and without secrets.

The text may be in a header (`X-Error-Message`), JSON (the Hub's `error`, a registry's `errors`, a gateway's `message` or
`detail`), XML (S3) or plain text. Web pages are ignored: their text does not fit into a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fetcher.artifact import redact

LONGEST = 200
"""Characters shown at most: a sentence or two, short enough for a termination message."""
BODY_LIMIT = 8 * 1024
"""Bytes read of an error's body at most. An error of S3 has about 300, one of the Hub 100."""

_TELLING = ("error_description", "message", "detail", "error", "msg", "errors", "title")
"""JSON members that hold the text, the most informative first."""
_DEEPEST = 4
_HIDDEN = r"""(?x)
    \b (?: (?:hf|ghp|gho) _ [A-Za-z0-9]{8,} | (?:sk|glpat) - [\w-]{8,} | eyJ [\w.-]{8,} )     # tokens with a known prefix
    | (?i: (?<=bearer\s) | (?<=basic\s) ) \S+
    | (?i: (?<=token=) | (?<=signature=) | (?<=credential=) | (?<=password=) | (?<=sig=) | (?<=key=) | (?<=secret=) )
      [^\s&;,"']+
    | \b (?! [0-9a-f]{40} \b ) [A-Za-z0-9+_-]{40,}                            # as long as a key or a signature, not a commit
    """


def complaint(headers: Mapping[str, str], body: bytes, *, secrets: Iterable[str] = ()) -> str:
    """The server's own text, at most LONGEST characters; "" if there is none. It never contains one of `secrets`."""
    code = headers.get("X-Error-Code", "")
    text = headers.get("X-Error-Message", "") or _in_body(headers.get("Content-Type", ""), body) or code
    if code and code.lower() not in text.lower():
        text = f"{code}: {text}"
    return _fit(text, secrets)


def _in_body(kind: str, body: bytes) -> str:
    text = body[:BODY_LIMIT].decode("utf-8", "replace").strip()
    if text[:1] in ("{", "[") or "json" in kind.lower():
        return _in_json(text)
    if text[:1] == "<":
        return " ".join(found for name in ("Code", "Message") for found in re.findall(rf"<{name}>([^<]+)</{name}>", text)[:1])
    plain = kind.partition(";")[0].strip().lower() in ("", "text/plain")
    return text if plain and "\ufffd" not in text else ""


def _in_json(text: str) -> str:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return next(_texts(document, 0), "")


def _texts(value: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    match value:
        case str() if value.strip():
            yield value
        case list():
            for each in value[:3]:
                yield from _texts(each, depth + 1)
        case dict():
            for name in _TELLING:
                yield from _texts(value.get(name), depth + 1)


def _fit(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "...")
    text = re.sub(r"https?://[^\s\"'<>]+", lambda found: redact(found[0]), text, flags=re.IGNORECASE)
    text = re.sub(_HIDDEN, "...", text)
    text = " ".join("".join(each if each.isprintable() else " " for each in text).replace('"', "'").split()).rstrip(".")
    return text if len(text) <= LONGEST else text[: LONGEST - 3].rstrip() + "..."
