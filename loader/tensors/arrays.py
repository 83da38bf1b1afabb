"""Views of bytes as numpy arrays, without copying."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from loader.checkpoint.dtypes import Dtype
from loader.checkpoint.header import TensorInfo
from loader.errors import MalformedCheckpoint, shown


class Raw(NamedTuple):
    """A tensor whose dtype numpy lacks (BF16, F8, F6, F4): its bytes, its dtype, and its shape in elements.

    `loader.adapters.torch` has these dtypes."""

    data: np.ndarray[tuple[int], np.dtype[np.uint8]]
    dtype: Dtype
    shape: tuple[int, ...]


Array = np.ndarray[Any, np.dtype[Any]] | Raw


def array(info: TensorInfo, view: memoryview) -> Array:
    """Return the tensor whose bytes are in `view`, without copying. Writable if `view` is; little-endian, like the format.

    Raises MalformedCheckpoint for a shape that numpy does not support (more than 64 dimensions, an extent beyond 2**63).
    """
    if info.dtype.numpy is None:
        return Raw(np.ndarray((info.size,), np.uint8, view), info.dtype, info.shape)
    try:
        return np.ndarray(info.shape, info.dtype.numpy, view)
    except ValueError as error:
        raise MalformedCheckpoint(
            f"numpy does not support this shape: {error}", path=info.file, field=f"{shown(info.name)}.shape"
        ) from error
