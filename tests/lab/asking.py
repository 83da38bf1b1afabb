"""Send one GET request and return its response."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answered:
    code: int
    kind: str
    text: str


def asked(address: str, *, accept: str = "*/*") -> Answered:
    """Return the response, whatever its status. Raises OSError if there is none."""
    request = urllib.request.Request(address, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Answered(answer.status, answer.headers["Content-Type"], answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answered(error.code, error.headers["Content-Type"], error.read().decode())
