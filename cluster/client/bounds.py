"""How much and how long an API server is listened to. Tests shorten what they would wait for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times are in seconds, sizes in bytes."""

    connect: float = 10.0
    answer: float = 30.0
    """For a whole answer. The API server itself gives an ordinary request up after 60."""
    silence: float = 10.0
    """How long a watch may be silent beyond its own end."""
    page: int = 100
    """Objects of a page. A NodeCache of 200 artifacts has some 130 kB with its managed fields, and parsed JSON takes about four
    times its text, so that a page takes some 50 MB. A page that is too large is asked for again in smaller ones."""
    pages: int = 5000
    """A list of more does not end."""
    largest: int = 64 * 1024 * 1024
    """Of an answer."""
    longest_line: int = 8 * 1024 * 1024
    """Of a change in a watch. An API server takes no object above 3 MiB."""


BOUNDS = Bounds()
