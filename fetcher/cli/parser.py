"""The commands of `fetcher` and their arguments."""

from __future__ import annotations

import argparse
from dataclasses import replace

from fetcher.cli.options import (
    ADOPT,
    CLUSTER,
    DEDUPE,
    DRY_RUN,
    EXPECT_FILE,
    FETCH,
    FOR,
    FORCE,
    FULL,
    GC,
    HOLD,
    LIMITS,
    MAX_RATE,
    MIRRORS,
    PARTS,
    PLACE,
    POD_UID,
    PRUNE,
    REPAIR,
    ROOT,
    SAMPLE,
    SELECTION,
    SERVE,
    SIGNERS,
    SORT,
    TRANSFER,
    WARM,
)
from fetcher.command.common_options import ENDING, JSON, METRICS, PROGRESS
from fetcher.command.options import Option
from fetcher.command.parser import Parser, parser_of
from fetcher.values import dataclass

_REQUEST = (*ROOT, *SELECTION, *PLACE, *FETCH)

COMMANDS: dict[str, tuple[str, tuple[Option, ...]]] = {
    "fetch": ("fetch an artifact, verified and complete", (*_REQUEST, *PARTS, *LIMITS, *HOLD, WARM, *METRICS, *ENDING)),
    "plan": ("show the files and bytes that a fetch would download", (*_REQUEST, *ENDING)),
    "key": ("print the cache key of an artifact", SELECTION),
    "list": ("list the artifacts in the cache", (*ROOT, SORT, WARM)),
    "du": ("show what the cache occupies on disk", (*ROOT, SORT)),
    "show": ("show one artifact of the cache", ROOT),
    "init": ("set the limits of a cache", (*LIMITS, JSON)),
    "rm": ("remove artifacts from the cache", (*ROOT, FORCE, DRY_RUN)),
    "prune": ("remove the least recently used artifacts", (*ROOT, *PRUNE, DRY_RUN)),
    "evict": ("rm for what is named, prune for a rule", (*ROOT, *PRUNE, FORCE, DRY_RUN)),
    "pin": ("keep an artifact: nothing removes it", (*ROOT, FOR)),
    "unpin": ("remove the pin of an artifact", ROOT),
    "hold": ("keep an artifact for a pod", (*ROOT, FOR, POD_UID)),
    "release": ("end the hold of a pod, or of all pods", (*ROOT, POD_UID)),
    "gc": ("delete what killed processes left in the cache", (*ROOT, *GC, DRY_RUN)),
    "adopt": ("make an artifact of files that another tool placed", (*ROOT, *SELECTION, *ADOPT, DEDUPE, *TRANSFER, PROGRESS)),
    "verify": (
        "check cached files against their manifest, and repair them",
        (*ROOT, FULL, EXPECT_FILE, *SIGNERS, SAMPLE, MAX_RATE, REPAIR, *TRANSFER, *MIRRORS, *METRICS),
    ),
    "serve": ("serve the cache's artifacts to other nodes, until a signal comes", (ROOT[0], *SERVE, *METRICS)),
    "cluster": ("show the models of a Kubernetes cluster, and on which nodes they are", CLUSTER),
}


@dataclass(frozen=True, slots=True)
class Positional:
    """The argument of a command that has no flag. `number`: as `nargs` of argparse."""

    name: str
    metavar: str
    help: str
    number: str | None = None

    def __str__(self) -> str:
        forms = {None: "{0}", "?": "[{0}]", "+": "{0}...", "*": "[{0}]..."}
        return forms[self.number].format(self.metavar)


_URI = Positional(
    "uri", "URI", "hf://owner/name[@rev], https://..., file:///..., pvc://claim/path, gs://bucket/path, az://container/path"
)
_ONE = Positional("what", "KEY|URI", "a cache key, or the URI that was fetched")
_SOME = Positional("what", "KEY|URI", "cache keys, or the URIs that were fetched", "+")
POSITIONALS = {
    "fetch": _URI,
    "plan": _URI,
    "key": _URI,
    "show": Positional("what", "KEY|URI|DIR", "a cache key, the URI that was fetched, or the artifact's directory"),
    "adopt": Positional("directory", "DIR", "a directory with the files; or a Hub cache, or a repository or snapshot of one"),
    "cluster": Positional("action", "status", "the only thing there is to do"),
    "init": Positional("root", "ROOT", "the directory of the cache; it is created if it is missing"),
    "rm": _SOME,
    "evict": replace(_SOME, number="*"),
    "pin": _ONE,
    "unpin": _ONE,
    "hold": _ONE,
    "release": _ONE,
    "verify": Positional("what", "KEY|URI|DIR", "a cache key, a URI or a directory (default: the whole cache)", "?"),
}


def build_parser() -> Parser:
    """The whole command line."""
    return parser_of("fetcher", "Fetch model weights into a verified, complete directory.", COMMANDS, _add_positional)


def _add_positional(command: argparse.ArgumentParser, name: str) -> None:
    if (each := POSITIONALS.get(name)) is not None:
        command.add_argument(each.name, metavar=each.metavar, nargs=each.number, help=each.help)
