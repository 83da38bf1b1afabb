"""`model-downloader` replaces LLMKube's container of that name: same variables, same place, verified files.

LLMKube's operator recognizes a reason by phrases in the termination message, so each of our messages contains its phrase.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fetcher.command.common_options import TERMINATION_LOG
from fetcher.command.parser import Parser
from fetcher.command.running import Report, run_command
from fetcher.command.termination import destination_of_variable
from fetcher.dropins import llmkube
from fetcher.dropins.fetching import Order, Through, fetched, options_of, settings_for
from fetcher.dropins.llmkube import Request, request_of
from fetcher.errors import FetchError, NotFound, OutOfSpace, Stalled, Unauthorized, Unreachable, Untrusted
from fetcher.events import Subscriber
from fetcher.settings import Settings
from fetcher.sources.access import Access

if TYPE_CHECKING:
    from fetcher.sources.base import Source
    from fetcher.steps import Step

PHRASES: tuple[tuple[type[FetchError], tuple[str, ...]], ...] = (
    (NotFound, ("returned error: 404",)),
    (Unauthorized, ("returned error: 401", "returned error: 403")),
    (Untrusted, ("certificate verify failed",)),
    (OutOfSpace, ("no space left on device",)),
    (Stalled, ("connection timed out",)),
    (Unreachable, ("failed to connect to", "could not resolve host", "connection refused", "connection timed out")),
)
"""The phrases by which LLMKube's operator recognizes a reason (releases of 2026). A message without one gets the first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return an exit code of `fetcher.errors`."""
    words = sys.argv[1:] if argv is None else list(argv)
    return run_command(
        lambda report: _download(words, report),
        log=destination_of_variable(TERMINATION_LOG.variable),
        interrupted="staging is kept, run the same command to go on",
        plain=True,
    )


def in_known_words(error: FetchError) -> str:
    """Return the message of `error` with a phrase that LLMKube recognizes."""
    phrases = next((phrases for kind, phrases in PHRASES if isinstance(error, kind)), ())
    if not phrases or "returned error: 5" in error.message or any(phrase in error.message for phrase in phrases):
        return error.message
    return f"{error.message} (in curl's words: {phrases[0]})"


def _download(words: Sequence[str], report: Report) -> Mapping[str, Any]:
    Parser(prog="model-downloader", description="Downloads the model of MODEL_SOURCE to CACHE_DIR.").parse_args(words)
    options = options_of(os.environ)
    _trust(os.environ)
    try:
        request = request_of(os.environ)
        (artifact,) = fetched([_order(request, options)], options, report)
    except FetchError as error:
        error.message = in_known_words(error)
        raise
    return {"message": f"the model is at {request.directory}", "bytes": artifact.bytes}


def _order(request: Request, options: Mapping[str, Any]) -> Order:
    if request.refresh is not None:
        options = {**options, "refresh": request.refresh}
    settings = settings_for(request.directory, options, os.environ)
    # LLMKube's cache key has no selection, so several selections of one source share a directory.
    settings = replace(settings, expect=request.expect, shared_dest=True)
    return Order(request.ref, settings, _renaming(request, settings), partial(_access_to, request.ref.uri, os.environ))


def _trust(environ: MutableMapping[str, str]) -> None:
    """Trust the certificate authorities that LLMKube mounts, as its own script does."""
    if not environ.get("CURL_CA_BUNDLE") and (bundle := llmkube.authorities_in(llmkube.AUTHORITIES)) is not None:
        environ["CURL_CA_BUNDLE"] = str(bundle)


def _access_to(source: str, environ: Mapping[str, str]) -> Access | None:
    """Return the access to S3 that LLMKube's Secret gives; None for other sources. May block. Raises ConfigurationError."""
    if not source.lower().startswith("s3://"):
        return None
    from fetcher.sources.s3 import found_access

    endpoint = environ.get("AWS_ENDPOINT_URL", "").strip() or environ.get("S3_ENDPOINT", "").strip()
    return found_access({**environ, "AWS_ENDPOINT_URL": endpoint})


def _renaming(request: Request, settings: Settings) -> Through | None:
    naming = request.naming
    if naming is None:
        return None

    def through(_: Subscriber, credentials: Access | None) -> tuple[Source, Step]:
        from fetcher.dropins.renaming import RenamingSource
        from fetcher.sources import open_source

        # The naming chooses among all files; the selection applies to the new names.
        published = open_source(replace(request.ref, include=()), settings, credentials=credentials)
        return RenamingSource(published, naming), lambda _: None

    return through


if __name__ == "__main__":
    sys.exit(main())
