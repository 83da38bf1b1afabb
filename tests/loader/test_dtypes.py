"""The dtypes and their sizes agree with the installed safetensors package."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors import SafetensorError

from loader.checkpoint.dtypes import DTYPES, Dtype
from tests.loader.making import content, entry, read_by_the_package

each = pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)


def test_the_dtypes_are_exactly_those_of_the_package() -> None:
    with pytest.raises(SafetensorError) as caught:
        read_by_the_package(content({"t": entry("none", [0], 0, 0)}))
    assert set(DTYPES) == set(re.findall(r"`(\w+)`", str(caught.value).partition("expected one of")[2]))


@each
def test_the_package_accepts_the_size_of_each_dtype(dtype: Dtype) -> None:
    whole = content({"t": entry(dtype.name, [8], 0, dtype.bits)}, bytes(dtype.bits))
    assert list(read_by_the_package(whole)) == ["t"]


@each
def test_the_numpy_dtype_has_the_same_size_and_is_little_endian(dtype: Dtype) -> None:
    if dtype.numpy is None:
        assert dtype.name.startswith(("F4", "F6", "F8", "BF16"))
    else:
        numpy = np.dtype(dtype.numpy)
        assert (numpy.itemsize * 8, numpy.newbyteorder("<")) == (dtype.bits, numpy)
        kind = {"B": "b", "U": "u", "I": "i", "F": "f", "C": "c"}[dtype.name[0]]
        assert numpy.kind == kind
