"""The common part of the engines' adapters: the user's settings, and the tensors of the files that the engine chose.

An engine starts one process for each GPU, and each process needs every tensor. They read through the page cache in the same
order, so storage is read once for the whole host. But then all of them would wait for the same few pages. So each process also
reads its own part into the page cache ahead of that. Parts are assigned by rank on this host (`Host`): by global rank, the
parts of other hosts' ranks would stay cold.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields
from itertools import takewhile
from typing import Any, Literal, NamedTuple, get_args

import torch

from fetcher.errors import ConfigurationError, FetchError
from fetcher.host.memory import memory_left
from fetcher.quantities import parse_size, size
from fetcher.telemetry.wording import counted
from fetcher.values import dataclass
from loader.adapters.torch import tensors
from loader.addresses import is_remote
from loader.checkpoint.index import Checkpoint, Shard
from loader.checkpoint.locations import natural
from loader.reading.reader import WINDOW
from loader.reading.strategy import Strategy
from loader.residency.model_files import ModelFile
from loader.residency.warming import bring_in
from loader.residency.windows import fitting, share, width_for, windows
from loader.tensors.weights import Verify, open_weights
from loader.workers import MOST_THREADS

LOAD_FORMAT = "weightlift"
"""The value of `--load-format`."""

_STRATEGIES = ("auto", *get_args(Strategy))


class Host(NamedTuple):
    """This process is `rank` (from 0) of the `ranks` processes on this host that load the same files."""

    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in `--model-loader-extra-config`: arguments of `loader.open`.

    `source`: the address that the weights come from, in place of the engine's files, at `revision`.
    """

    strategy: Strategy | Literal["auto"] = "auto"
    threads: int | None = None
    window: int = WINDOW
    source: str | None = None
    revision: str | None = None
    verify: Verify = "end"

    @classmethod
    def read(cls, config: object) -> Settings:
        """Parse settings like `{"strategy": "direct", "threads": 8, "window": "1Gi"}`. Raises ConfigurationError."""
        if not isinstance(config, Mapping):
            raise ConfigurationError(f"the extra config of {LOAD_FORMAT} must be an object, not {config!r}")
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(map(str, config)) - set(known)):
            raise ConfigurationError(f"{LOAD_FORMAT} has no setting {unknown[0]!r}; use one of {', '.join(known)}")
        readers: Mapping[str, Callable[[Any], Any]] = {
            "strategy": _strategy,
            "threads": _threads,
            "window": _window,
            "source": _address,
            "revision": _text,
            "verify": _verify,
        }
        return cls(**{name: readers[name](value) for name, value in config.items()})


def read_tensors(
    files: Sequence[str],
    settings: Settings,
    host: Host,
    *,
    log: Callable[[str], None],
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and tensor of each tensor that is `wanted`, in the order of the files, while later ones are read.

    With `settings.source` the tensors come from there, and `files` are not read. Every process receives what it wants itself.
    Tensors can be kept: nothing overwrites them. Raises as `loader.adapters.torch.tensors`.
    """
    remote: dict[str, Any] = {"revision": settings.revision, "verify": settings.verify} if settings.source else {}
    ordered: Sequence[str] = sorted(files, key=natural)
    weights = open_weights(
        settings.source or ordered,
        strategy=settings.strategy,
        threads=settings.threads,
        window=settings.window,
        rank=host.rank,
        world_size=host.ranks,
        on_warning=log,
        **remote,
    )
    available, way = weights.checkpoint.tensors, weights.way
    names = [name for name in available if wanted is None or wanted(name)]
    what = f"{counted(len(names), 'tensor')} ({size(sum(available[name].size for name in names))})"
    log(f"reading {what} of {counted(len(weights.checkpoint.shards), 'file')}, {way.strategy}: {way.reason}")
    # A rank that skips tensors (experts of other ranks) skips different ones than the other ranks, so they share no reading.
    shared = host.ranks > 1 and way.strategy == "buffered" and len(names) == len(available)
    with sharing(weights.checkpoint, host, threads=way.threads) if shared else nullcontext():
        yield from tensors(weights, names)
    for path, reason in weights.fallbacks.items():
        log(f"{path}: {reason}, and was read through the page cache instead")
    for path, reason in weights.unverified.items():
        log(f"{path}: not verified: {reason}")


@contextmanager
def sharing(checkpoint: Checkpoint[Shard], host: Host, *, threads: int) -> Iterator[None]:
    """Read this rank's part of the files into the page cache in the background, as far as the page cache has room.

    Windows are assigned to the ranks in turn, so all advance together through the files in reading order. Errors are ignored:
    the reader of the same bytes reports them.
    """
    members = [ModelFile(shard.path, shard.identity, shard=True) for shard in checkpoint.shards]
    plan = tuple(windows([member.size for member in members], width=width_for(checkpoint.size, host.ranks)))
    part = share(fitting(plan, memory_left().pages.bytes), rank=host.rank, ranks=host.ranks)
    stopped = threading.Event()

    def work() -> None:
        with suppress(FetchError):
            bring_in(members, takewhile(lambda _: not stopped.is_set(), part), threads=threads)

    thread = threading.Thread(target=work, name="share", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class Model(NamedTuple):
    """What an engine is given in place of an address: a `directory` with all files but the weights, and the `settings`."""

    directory: str
    settings: dict[str, Any]


def model_at(uri: str, revision: str | None, settings: Mapping[str, Any]) -> Model:
    """Fetch what an engine reads itself of the model at `uri`; the weights will be streamed. Raises FetchError."""
    from loader.remote.companions import fetch_companions  # late: models in directories need no network

    added = {"source": uri} | ({"revision": revision} if revision else {})
    return Model(fetch_companions(uri, revision), {**settings, **added})


def _address(value: object) -> str:
    if not is_remote(value):
        raise ConfigurationError(f"the source of {LOAD_FORMAT} must be an address such as s3://bucket/model, not {value!r}")
    return str(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"the revision of {LOAD_FORMAT} must be a text, not {value!r}")
    return value


def _verify(value: object) -> str:
    if value not in get_args(Verify):
        raise ConfigurationError(f"{LOAD_FORMAT} verifies at {' or '.join(get_args(Verify))}, not {value!r}")
    return str(value)


def _strategy(value: object) -> str:
    if value not in _STRATEGIES:
        raise ConfigurationError(f"{LOAD_FORMAT} has no strategy {value!r}; use one of {', '.join(_STRATEGIES)}")
    return str(value)


def _threads(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_THREADS:
        raise ConfigurationError(f"the threads of {LOAD_FORMAT} must be a number from 1 to {MOST_THREADS}, not {value!r}")
    return value


def _window(value: object) -> int:
    window = parse_size(value) if isinstance(value, str) else value
    if type(window) is not int or window <= 0:
        raise ConfigurationError(f"the window of {LOAD_FORMAT} must be a size above zero, such as 1Gi, not {value!r}")
    return window
