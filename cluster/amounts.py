"""Quantities of Kubernetes as bytes. Pure."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_UNITS: dict[str, int | Decimal] = {
    "": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:([kMGTPEm]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
MOST = 2**63 - 1
"""What Kubernetes can count."""


def bytes_of(quantity: object) -> int:
    """Return a number, or a text such as `10Gi`, `1.5T` or `1e12`, in bytes, rounded up. Raises ValueError."""
    if isinstance(quantity, bool) or not isinstance(quantity, int | str):
        raise ValueError(f"{quantity!r} is not a quantity; write 100Gi")
    match = _QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity; write 100Gi")
    number, unit, exponent = match.groups()
    value = Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _UNITS[unit or ""])
    return min(MOST, math.ceil(value))
