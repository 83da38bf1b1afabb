"""fetcher: fetches model weights into a verified, complete directory.

::

    import fetcher
    artifact = fetcher.fetch("hf://org/model", cache_dir="/models")
    print(artifact.path)

All errors derive from `fetcher.errors.FetchError`. Importing this package is cheap: network code is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fetcher.version import VERSION as __version__

if TYPE_CHECKING:
    from fetcher.api import Artifact as Artifact
    from fetcher.api import fetch as fetch
    from fetcher.api import fetch_async as fetch_async
    from fetcher.errors import FetchError as FetchError

_HOMES = {"Artifact": "fetcher.api", "fetch": "fetcher.api", "fetch_async": "fetcher.api", "FetchError": "fetcher.errors"}

__all__ = ["Artifact", "FetchError", "__version__", "fetch", "fetch_async"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fetcher' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
