"""`storage-initializer SRC DST [SRC DST ...]` replaces KServe's: it fetches and verifies each source in its directory.

KServe shows its users the last lines of the log, so the reason comes last, as a sentence. The termination message has it too.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fetcher.artifact import ArtifactRef, redact
from fetcher.command.common_options import TERMINATION_LOG
from fetcher.command.parser import Parser
from fetcher.command.running import Report, run_command, with_progress
from fetcher.command.termination import destination_of_variable
from fetcher.dropins import kserve
from fetcher.dropins.fetching import Order, Through, fetched, options_of, settings_for
from fetcher.dropins.kserve_access import access_to
from fetcher.dropins.linking import link, linkable_entries
from fetcher.errors import UsageError
from fetcher.events import Linked, Subscriber, Warned
from fetcher.filesystem import make_directory, storing
from fetcher.settings import Settings
from fetcher.sources.access import Access
from fetcher.sources.addresses import hub_address

if TYPE_CHECKING:
    from fetcher.sources.base import Source
    from fetcher.steps import Step

WRONG_ARGUMENTS = 1
"""Exit code of KServe's initializer when its arguments are not pairs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return an exit code of `fetcher.errors` or `WRONG_ARGUMENTS`."""
    words = sys.argv[1:] if argv is None else list(argv)
    code = run_command(
        lambda report: _initialize(words, report),
        log=destination_of_variable(TERMINATION_LOG.variable),
        interrupted="staging is kept, run the same command to go on",
        plain=True,
    )
    pairs = len(words) >= 2 and len(words) % 2 == 0
    return WRONG_ARGUMENTS if code == UsageError.exit_code and not pairs else code


def _initialize(words: Sequence[str], report: Report) -> Mapping[str, Any]:
    parser = Parser(prog="storage-initializer", description="Fetches models to the directories that KServe mounts.")
    parser.add_argument("words", nargs="*", metavar="SRC DST", help="a source and its directory")
    pairs = kserve.pairs_of(parser.parse_args(words).words)
    # Check all sources before the first fetch, so that an unsupported one fails immediately.
    kinds = [kserve.kind_of(pair.source, exists=os.path.exists(pair.source)) for pair in pairs]
    options, patterns = options_of(os.environ), kserve.patterns_of(os.environ)

    def place_local(on_event: Subscriber) -> list[tuple[kserve.Pair, kserve.Kind]]:
        _trust(os.environ, on_event)
        _allow_plain_http(pairs, os.environ)
        _warn_of_verification(pairs, on_event)
        remaining = [_place_local(pair, kind, patterns, on_event) for pair, kind in zip(pairs, kinds, strict=True)]
        return [each for each in remaining if each is not None]

    remaining = with_progress(options.get("progress", "auto"), place_local)
    sharing = Counter(pair.directory.absolute() for pair, _ in remaining)
    orders = []
    for pair, kind in remaining:
        settings = settings_for(pair.directory, options, os.environ, among=len(remaining))
        settings = replace(settings, shared_dest=sharing[pair.directory.absolute()] > 1)
        orders.append(order_of(pair.source, kind, patterns, settings))
    artifacts = fetched(orders, options, report)
    directories = ", ".join(dict.fromkeys(str(pair.directory) for pair in pairs))
    return {"message": f"the model is at {directories}", "bytes": sum(artifact.bytes for artifact in artifacts)}


def order_of(source: str, kind: kserve.Kind, patterns: kserve.Patterns, settings: Settings) -> Order:
    """Return the order that fetches `source`. Raises UsageError."""
    ref = ArtifactRef(source)
    credentials = partial(access_to, source, os.environ)
    if kind == "archive":
        # Unpacked files are hard-linked into place; a required digest or checksum is that of the archive.
        placed = replace(settings, hard_link=True, require_digests=False, require_checksums=False)
        return Order(ref, placed, _unpacking(ref, settings), credentials)
    if kind == "repository":
        ref = ArtifactRef(source, include=patterns.allow, exclude=patterns.ignore)
        return Order(ref, settings, credentials=credentials)
    address = hub_address(ref)
    if address is not None and address.path is not None and "/" in address.path:
        return Order(ref, settings, _flattening(ref, settings, PurePosixPath(address.path).name))
    return Order(ref, settings)


def _place_local(
    pair: kserve.Pair, kind: kserve.Kind, patterns: kserve.Patterns, on_event: Subscriber
) -> tuple[kserve.Pair, kserve.Kind] | None:
    """Link a local source into its directory and return None. Return the pair if it must be fetched or unpacked."""
    if kind == "nothing":
        with storing("make the directory"):
            make_directory(pair.directory)
        return None
    if kind != "local":
        return pair, kind
    source = kserve.local_path(pair.source)
    chosen = linkable_entries(source, admits=patterns.admits)
    if len(chosen) == 1 and kserve.is_archive(chosen[0].name) and chosen[0].is_file():
        return kserve.Pair(str(chosen[0].absolute()), pair.directory), "archive"
    link(chosen, pair.directory)
    on_event(Linked(str(source), str(pair.directory), len(chosen)))
    return None


def _allow_plain_http(pairs: Sequence[kserve.Pair], environ: MutableMapping[str, str]) -> None:
    """Ask the registries of the sources without TLS, if KServe's variable says so."""
    if sources := [pair.source for pair in pairs if kserve.store_of(pair.source) == "oci"]:
        from fetcher.dropins.kserve_oci import without_tls

        environ.update(without_tls(sources, environ))


def _trust(environ: MutableMapping[str, str], on_event: Subscriber) -> None:
    """Trust the certificate authorities of KServe's ConfigMap."""
    bundle: Path | None = kserve.authorities_of(environ)
    if bundle is None:
        return
    if bundle.is_file():
        environ["REQUESTS_CA_BUNDLE"] = str(bundle)
    else:
        on_event(Warned("Configuration", f"CA_BUNDLE_CONFIGMAP_NAME is set, but {bundle} does not exist; it is ignored"))


def _warn_of_verification(pairs: Sequence[kserve.Pair], on_event: Subscriber) -> None:
    if not any(kserve.store_of(pair.source) == "s3" for pair in pairs):
        return
    from fetcher.dropins.kserve_s3 import is_unverified

    if is_unverified(os.environ):
        on_event(Warned("Configuration", "S3_VERIFY_SSL is ignored: certificates are always verified; set AWS_CA_BUNDLE"))


def _unpacking(ref: ArtifactRef, settings: Settings) -> Through:
    def through(on_event: Subscriber, credentials: Access | None) -> tuple[Source, Step]:
        from fetcher.dropins.unpacking import ArchiveSource
        from fetcher.engine.unpacking import unpacking
        from fetcher.sources import open_source

        archive = ArchiveSource(open_source(ref, settings, credentials=credentials), redact(ref.uri))
        source, _, step = unpacking(archive, ref, settings, on_event, lambda _: None)
        return source, step

    return through


def _flattening(ref: ArtifactRef, settings: Settings, name: str) -> Through:
    """Place the one file of an address without its published directories."""

    def through(_: Subscriber, credentials: Access | None) -> tuple[Source, Step]:
        from fetcher.dropins.renaming import RenamingSource
        from fetcher.sources import open_source

        source = open_source(ref, settings, credentials=credentials)
        return RenamingSource(source, lambda files: {name: files[0].path}), lambda _: None

    return through


if __name__ == "__main__":
    sys.exit(main())
