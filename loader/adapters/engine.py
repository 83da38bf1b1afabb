"""What an engine's adapter needs besides the engine: its user's settings, and the tensors of the files it chose.

An engine starts a process a GPU, and each of them wants every tensor. So they read through the page cache, in the same order:
what one has asked for the others wait for, and storage is read once for the whole host. That alone would leave them waiting
for the same few pages. So, ahead of that, each brings a part of its own into the page cache (`Host`, by rank on this host; a
global rank would leave what the ranks of other hosts have cold).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import Any, Literal, NamedTuple, get_args

import torch

from fetcher.errors import ConfigurationError, FetchError
from fetcher.host.memory import memory_left
from fetcher.quantities import parse_size, size
from fetcher.telemetry.wording import counted
from loader.adapters.torch import tensors
from loader.checkpoint.index import Checkpoint
from loader.checkpoint.locations import natural
from loader.reading.reader import WINDOW
from loader.reading.strategy import Strategy
from loader.residency.model_files import ModelFile
from loader.residency.warming import bring_in
from loader.residency.windows import fitting, share, width_for, windows
from loader.tensors.weights import open_weights
from loader.workers import MOST_THREADS

LOAD_FORMAT = "weightlift"
"""What users write behind `--load-format`."""

_STRATEGIES = ("auto", *get_args(Strategy))


class Host(NamedTuple):
    """This process is number `rank` of the `ranks` on this host that load the same files."""

    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What `--model-loader-extra-config` may hold: arguments of `loader.open`."""

    strategy: Strategy | Literal["auto"] = "auto"
    threads: int | None = None
    window: int = WINDOW

    @classmethod
    def read(cls, config: object) -> Settings:
        """`{"strategy": "direct", "threads": 8, "window": "1Gi"}`. Raises ConfigurationError."""
        if not isinstance(config, Mapping):
            raise ConfigurationError(f"the extra config of {LOAD_FORMAT} must be an object, not {config!r}")
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(map(str, config)) - set(known)):
            raise ConfigurationError(f"{LOAD_FORMAT} has no setting {unknown[0]!r}; there are {', '.join(known)}")
        readers: Mapping[str, Callable[[Any], Any]] = {"strategy": _strategy, "threads": _threads, "window": _window}
        return cls(**{name: readers[name](value) for name, value in config.items()})


def read_tensors(
    files: Sequence[str],
    settings: Settings,
    host: Host,
    *,
    log: Callable[[str], None],
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of each, or of those `wanted`, in the order of the files, while later ones are being read.

    What is handed out may be kept: nothing overwrites it. Raises what `loader.adapters.torch.tensors` does.
    """
    ordered = sorted(files, key=natural)
    weights = open_weights(
        ordered,
        strategy=settings.strategy,
        threads=settings.threads,
        window=settings.window,
        rank=host.rank,
        world_size=host.ranks,
        on_warning=log,
    )
    held, way = weights.checkpoint.tensors, weights.way
    names = [name for name in held if wanted is None or wanted(name)]
    what = f"{counted(len(names), 'tensor')} ({size(sum(held[name].size for name in names))}) of {counted(len(files), 'file')}"
    log(f"reading {what}, {way.strategy}: {way.reason}")
    # Who leaves tensors out leaves out others than its neighbours do: its experts are its own part.
    together = host.ranks > 1 and way.strategy == "buffered" and len(names) == len(held)
    with sharing(weights.checkpoint, host, threads=way.threads) if together else nullcontext():
        yield from tensors(weights, names)
    for path, reason in weights.fallbacks.items():
        log(f"{path}: {reason}, and was read through the page cache instead")


@contextmanager
def sharing(checkpoint: Checkpoint, host: Host, *, threads: int) -> Iterator[None]:
    """Meanwhile this rank's part of the files comes into the page cache, as far as that has room for all of them.

    The ranks' parts are windows in turn, so that together they advance through the files in the order of reading. What can't
    be brought in is left to whoever reads it, who will say what is wrong.
    """
    members = [ModelFile(shard.path, shard.identity, shard=True) for shard in checkpoint.shards]
    plan = tuple(windows([member.size for member in members], width=width_for(checkpoint.size, host.ranks)))
    part = share(fitting(plan, memory_left().pages.bytes), rank=host.rank, ranks=host.ranks)
    stopped = threading.Event()

    def work() -> None:
        with suppress(FetchError):
            bring_in(members, takewhile(lambda _: not stopped.is_set(), part), threads=threads)

    helper = threading.Thread(target=work, name="share", daemon=True)
    helper.start()
    try:
        yield
    finally:
        stopped.set()
        helper.join()


def _strategy(value: object) -> str:
    if value not in _STRATEGIES:
        raise ConfigurationError(f"{LOAD_FORMAT} has no strategy {value!r}; there are {', '.join(_STRATEGIES)}")
    return str(value)


def _threads(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_THREADS:
        raise ConfigurationError(f"the threads of {LOAD_FORMAT} are a number from 1 to {MOST_THREADS}, not {value!r}")
    return value


def _window(value: object) -> int:
    found = parse_size(value) if isinstance(value, str) else value
    if type(found) is not int or found <= 0:
        raise ConfigurationError(f"the window of {LOAD_FORMAT} is a size above zero, such as 1Gi, not {value!r}")
    return found
