"""The dtypes are those of the installed safetensors package, with its sizes."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors import SafetensorError

from loader.checkpoint.dtypes import DTYPES, Dtype
from tests.loader.making import content, entry, read_by_the_package

each = pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)


def test_they_are_those_that_the_package_knows_no_more_and_no_fewer() -> None:
    with pytest.raises(SafetensorError) as caught:
        read_by_the_package(content({"t": entry("none", [0], 0, 0)}))
    assert set(DTYPES) == set(re.findall(r"`(\w+)`", str(caught.value).partition("expected one of")[2]))


@each
def test_eight_elements_take_as_many_bytes_as_an_element_has_bits(dtype: Dtype) -> None:
    whole = content({"t": entry(dtype.name, [8], 0, dtype.bits)}, bytes(dtype.bits))
    assert list(read_by_the_package(whole)) == ["t"]


@each
def test_numpy_has_it_at_the_same_size_and_little_endian_or_not_at_all(dtype: Dtype) -> None:
    if dtype.numpy is None:
        assert dtype.name.startswith(("F4", "F6", "F8", "BF16"))
    else:
        numpy = np.dtype(dtype.numpy)
        assert (numpy.itemsize * 8, numpy.newbyteorder("<")) == (dtype.bits, numpy)
        kind = {"B": "b", "U": "u", "I": "i", "F": "f", "C": "c"}[dtype.name[0]]
        assert numpy.kind == kind
