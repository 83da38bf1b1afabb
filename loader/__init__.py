"""loader: reads safetensors from shared or node-local storage at the speed of the storage.

::

    import loader
    for name, array in loader.open("/models/5df9d7cea3b612c3").tensors():
        ...

Errors belong to the fetcher's tree: `loader.errors.LoadError`. Importing this package is cheap: numpy is imported on first
use, and the commands do not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loader.errors import LoadError as LoadError
    from loader.tensors.arrays import Raw as Raw
    from loader.tensors.weights import Weights as Weights
    from loader.tensors.weights import open_weights as open

_HOMES = {
    "LoadError": ("loader.errors", "LoadError"),
    "Raw": ("loader.tensors.arrays", "Raw"),
    "Weights": ("loader.tensors.weights", "Weights"),
    "open": ("loader.tensors.weights", "open_weights"),
}

__all__ = ["LoadError", "Raw", "Weights", "open"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'loader' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
