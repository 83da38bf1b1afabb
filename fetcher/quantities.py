"""Sizes, rates, durations and addresses in flags and variables: parsing and formatting. And a little arithmetic."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fetcher.errors import ConfigurationError
from fetcher.values import dataclass

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DOUBLINGS = 16
"""More only make the number larger than any limit."""


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient, rounded up to an integer."""
    return -(-dividend // divisor)


def median(values: Iterable[float]) -> float:
    """Return the median; that of an even number of values is between two. (The module `statistics` takes 3 ms to import.)"""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def parse_size(text: str) -> int:
    """Parse `256Mi`, `1.5GiB`, `500MB` or `4096` into bytes; units as in Kubernetes quantities. Raises ConfigurationError."""
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if not match or match[2].lower() not in _UNITS:
        raise ConfigurationError(f"{text!r} is not a size; write 256Mi, 1.5Gi or 500M")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of bytes, or a percentage of a filesystem."""

    number: float
    percent: bool = False

    def of(self, total: int) -> int:
        """Return the amount in bytes, on a filesystem of `total` bytes."""
        return int(total * self.number / 100) if self.percent else int(self.number)

    def shown(self) -> str:
        """Return the amount for people: `80%` or `1.5 GiB`."""
        return str(self) if self.percent else size(self.number)

    def __str__(self) -> str:
        return f"{self.number:g}%" if self.percent else str(int(self.number))


def parse_amount(text: str) -> Amount:
    """Parse a size, or a percentage such as `80%`. Raises ConfigurationError."""
    match = re.fullmatch(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*", text)
    if match is None:
        return Amount(parse_size(text))
    if float(match[1]) > 100:
        raise ConfigurationError(f"{text!r} is more than the whole filesystem; write 80%")
    return Amount(float(match[1]), percent=True)


def parse_rate(text: str) -> float | None:
    """Parse `100M`, `100MB/s` or `1Gi` into bytes per second; `0` and `none` mean no limit. Raises ConfigurationError."""
    if text.strip().lower() in ("", "none", "unlimited"):
        return None
    return float(parse_size(re.sub(r"/s(ec)?\s*$", "", text.strip(), flags=re.IGNORECASE))) or None


def parse_duration(text: str) -> float:
    """Parse `30`, `30s`, `5m`, `1h30m` or `250ms` into seconds. Raises ConfigurationError."""
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
        return float(text)
    parts = re.findall(r"([0-9]{1,12}(?:\.[0-9]+)?)(ms|[smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(f"{text!r} is not a duration; write 30s, 5m or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def parse_seconds(text: str) -> float:
    """Parse a duration above zero into seconds. Raises ConfigurationError."""
    if (seconds := parse_duration(text)) <= 0:
        raise ConfigurationError(f"{text!r} is not a duration above zero; write 30s or 5m")
    return seconds


def parse_number(least: int, most: int, text: str) -> int:
    """Parse an integer from `least` to `most`. Raises ConfigurationError."""
    if not re.fullmatch("[0-9]{1,9}", text.strip()) or not least <= int(text) <= most:
        raise ConfigurationError(f"{text!r} is not a number from {least} to {most}")
    return int(text)


def parse_endpoint(text: str) -> tuple[str, int]:
    """Parse `127.0.0.1:8650` or `[::1]:8650` into address and port. Raises ConfigurationError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]\s]+)):([0-9]{1,5})", text.strip())
    if match is None or int(match[3]) > 65535:
        raise ConfigurationError(f"{text!r} is not an address with a port; write 127.0.0.1:8650 or [::]:8650")
    return match[1] or match[2], int(match[3])


def size(count: float) -> str:
    """Format a number of bytes: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def doubled(first: float, failures: int, longest: float) -> float:
    """Return the seconds after `failures` in a row: `first` after one, twice as many after each more, `longest` at most."""
    return min(longest, first * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS))
