"""A checkpoint's tensors as torch tensors, including dtypes that numpy lacks (BF16, F8, F4), without copying.

::

    from loader.adapters.torch import load, tensors

    for name, tensor in tensors("/models/5df9d7cea3b612c3"):     # later tensors are read meanwhile
        ...
    state = load("/models/5df9d7cea3b612c3")
    state = load("/models/5df9d7cea3b612c3", device="cuda")

The safetensors package is the reference, dtype by dtype; `tests/loader/adapters/test_torch.py` compares every bit. Memory is
reused after the last tensor that views it is released (`loader.reading.arena`). Clone a small tensor that you keep for long.

Tested with torch 2.13. Older versions have fewer dtypes (U16 to U64 since 2.3, F8_E8M0 since 2.7, F4 since 2.8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import starmap
from typing import Any

import torch

from fetcher.errors import UsageError
from loader.adapters.devices import copied, find_device
from loader.checkpoint.header import TensorInfo
from loader.checkpoint.index import PathLike
from loader.errors import MalformedCheckpoint, shown
from loader.tensors.weights import Order, Weights, open_weights

_NAMES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_x2",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""The torch name of each dtype. F6 is missing, because torch does not have it."""

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, theirs) for name, theirs in _NAMES.items() if hasattr(torch, theirs)}

Source = Weights | PathLike | Sequence[PathLike]
"""Open weights, or an argument of `loader.open`."""


def tensors(
    source: Source, order: Order = "file", *, device: str | torch.device = "cpu", **options: Any
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and tensor of each tensor, while later ones are read. `options` are those of `loader.open`.

    `device`: where the tensors go. On the cpu they are views of what was read. Elsewhere each has memory of its own, and is
    ready for work queued on the stream that is current when it is yielded (see `loader.adapters.devices`).

    Raises as `loader.open`, `Weights.tensors` and `tensor`; UsageError for a device that is not here, TooLarge if it is full.
    """
    target = find_device(device)
    weights = _opened(source, options)
    # starmap keeps no reference to a delivered tensor, so its memory is idle when the consumer releases it.
    if target.type == "cpu":
        return starmap(_named, weights.stream(order))
    return starmap(_named_copy, copied(weights, order, target))


def load(
    source: Source, order: Order = "file", *, device: str | torch.device = "cpu", **options: Any
) -> dict[str, torch.Tensor]:
    """Return all tensors by name. Raises as `tensors`; on the cpu TooLarge before anything is read."""
    if find_device(device).type == "cpu":
        return dict(starmap(_named, _opened(source, options).everything(order)))
    return dict(tensors(source, order, device=device, **options))


def tensor(info: TensorInfo, view: memoryview) -> torch.Tensor:
    """Return the tensor whose bytes are in the writable `view`. It shares the memory of `view`, or is a copy if the bytes are
    not aligned for the dtype (in files whose header length is not a multiple of 8).

    Two elements of F4 are one of torch's `float4_e2m1fn_x2`, so the last dimension is halved.

    Raises UsageError for a dtype that this torch lacks (every version lacks F6), MalformedCheckpoint for an impossible shape.
    """
    return shaped(info, torch.frombuffer(view, dtype=torch.uint8) if view.nbytes else torch.empty(0, dtype=torch.uint8))


def shaped(info: TensorInfo, read: torch.Tensor) -> torch.Tensor:
    """Return the tensor whose bytes are `read`, on the device of `read`. Otherwise like `tensor`."""
    dtype = _dtype(info)
    shape = _halved(info) if info.dtype.name == "F4" else info.shape
    try:
        if not read.numel():
            return torch.empty(shape, dtype=dtype, device=read.device)
        if read.data_ptr() % dtype.itemsize:
            read = read.clone()
        return read.view(dtype).reshape(shape)
    except (RuntimeError, TypeError) as error:
        problem = f"torch does not support this shape: {str(error).splitlines()[0]}"
        raise MalformedCheckpoint(problem, path=info.file, field=f"{shown(info.name)}.shape") from error


def _named(info: TensorInfo, view: memoryview) -> tuple[str, torch.Tensor]:
    return info.name, tensor(info, view)


def _named_copy(info: TensorInfo, read: torch.Tensor) -> tuple[str, torch.Tensor]:
    return info.name, shaped(info, read)


def _opened(source: Source, options: dict[str, Any]) -> Weights:
    return source if isinstance(source, Weights) else open_weights(source, **options)


def _dtype(info: TensorInfo) -> torch.dtype:
    dtype = _DTYPES.get(info.dtype.name)
    if dtype is None:
        remedy = "leave it out of `order`, or read its bytes with `Weights.stream`"
        raise UsageError(f"cannot read {shown(info.name)}: torch {torch.__version__} has no dtype {info.dtype}; {remedy}")
    return dtype


def _halved(info: TensorInfo) -> tuple[int, ...]:
    *others, last = info.shape
    if last % 2:
        problem = "the last dimension is odd, but torch packs two elements of F4 into one"
        raise MalformedCheckpoint(problem, path=info.file, field=f"{shown(info.name)}.shape")
    return *others, last // 2
