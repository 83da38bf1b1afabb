"""The dtypes of safetensors 0.8, with the bits of an element and the numpy dtype for a view.

Names and sizes are those of its `Dtype`. `tests/loader/test_dtypes.py` compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype of `bits` per element.

    `numpy` is the name of the little-endian numpy dtype. It is None if numpy has no such dtype; the tensor is then raw bytes.
    """

    name: str
    bits: int
    numpy: str | None = None

    def __str__(self) -> str:
        return self.name


DTYPES: Mapping[str, Dtype] = MappingProxyType(
    {
        dtype.name: dtype
        for dtype in (
            Dtype("BOOL", 8, "|b1"),
            # F4 and F6 are packed: the first element is in the low bits. Shapes count elements, not bytes.
            Dtype("F4", 4),
            Dtype("F6_E2M3", 6),
            Dtype("F6_E3M2", 6),
            Dtype("U8", 8, "|u1"),
            Dtype("I8", 8, "|i1"),
            Dtype("F8_E5M2", 8),
            Dtype("F8_E4M3", 8),
            Dtype("F8_E8M0", 8),
            Dtype("F8_E4M3FNUZ", 8),
            Dtype("F8_E5M2FNUZ", 8),
            Dtype("I16", 16, "<i2"),
            Dtype("U16", 16, "<u2"),
            Dtype("F16", 16, "<f2"),
            Dtype("BF16", 16),
            Dtype("I32", 32, "<i4"),
            Dtype("U32", 32, "<u4"),
            Dtype("F32", 32, "<f4"),
            Dtype("C64", 64, "<c8"),
            Dtype("F64", 64, "<f8"),
            Dtype("I64", 64, "<i8"),
            Dtype("U64", 64, "<u8"),
        )
    }
)
