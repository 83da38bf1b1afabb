"""`fetcher serve`: the server from its start to its end by a signal."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fetcher.cli.parser import COMMANDS
from fetcher.cli.roots import root_of
from fetcher.command.options import values
from fetcher.command.publication import EVERY, with_labels
from fetcher.command.results import print_result
from fetcher.command.running import with_progress
from fetcher.command.signals import SIGNALS, Interrupted
from fetcher.errors import ConfigurationError, NotFound, UsageError
from fetcher.events import Listening, Subscriber, Warned

if TYPE_CHECKING:
    from fetcher.serving import Authorization, CertificateFiles, Server, Serving

_LISTEN = ("127.0.0.1", 8650)
_DRAIN = 20.0
"""Seconds: less than the 30 that Kubernetes leaves between SIGTERM and SIGKILL."""


def serve(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Serve until a signal comes, and print the base URL. Raises ConfigurationError, UsageError, NotFound.

    Raises Interrupted if answers had to be cut; when all of them were finished, the command has done what it should.
    """
    options = values(COMMANDS["serve"][1], arguments, environ)
    serving = _serving(options, environ)
    with_progress("log", lambda on_event: _serve(serving, options, on_event))


def _serving(options: Mapping[str, Any], environ: Mapping[str, str]) -> Serving:
    from fetcher.serving import Serving, ServingLimits

    root = root_of(options, environ)
    if not root.is_dir():
        raise NotFound(f"cannot serve {root}: the directory does not exist; pass the cache root with --cache-dir")
    limits = ServingLimits()
    address, port = options.get("listen", _LISTEN)
    return Serving(
        root=Path(os.path.realpath(root)),
        address=address,
        port=port,
        authorization=_authorization(options, environ),
        certificates=_certificates(options),
        limits=ServingLimits(
            options.get("max_uploads", limits.uploads), options.get("limit_rate"), options.get("memory_limit", limits.memory)
        ),
    )


def _authorization(options: Mapping[str, Any], environ: Mapping[str, str]) -> Authorization | None:
    from fetcher.serving import ApiServer, SharedSecret, TokenReview

    if "auth_secret_file" in options and "token_review" in options:
        raise UsageError("--auth-secret-file and --token-review both say who may fetch; give one of them")
    if ("token_review" in options) != ("token_user" in options):
        raise UsageError("--token-review says for whom a token is, and --token-user whose it may be; give both")
    if "auth_secret_file" in options:
        return SharedSecret(options["auth_secret_file"])
    if "token_review" in options:
        return TokenReview(ApiServer.of_this_pod(environ), options["token_review"], options["token_user"])
    return None


def _certificates(options: Mapping[str, Any]) -> CertificateFiles | None:
    from fetcher.serving import CertificateFiles

    if ("tls_cert" in options) != ("tls_key" in options) or ("tls_client_ca" in options and "tls_cert" not in options):
        raise ConfigurationError("TLS needs both --tls-cert and --tls-key")
    if "tls_cert" not in options:
        return None
    return CertificateFiles(options["tls_cert"], options["tls_key"], options.get("tls_client_ca"))


def _serve(serving: Serving, options: Mapping[str, Any], on_event: Subscriber) -> None:
    from fetcher.serving import Server

    with ExitStack() as stack:
        server = Server(serving, warn=lambda message: on_event(Warned(ConfigurationError.reason, message)))
        try:
            publish = _publisher(server, options, stack, on_event)
            print_result(server.where)
            while True:
                publish()
                threading.Event().wait(EVERY)
        except Interrupted:
            if not _drained(server, options.get("drain_for", _DRAIN)):
                raise
        except BaseException:
            server.cut()
            raise


def _drained(server: Server, seconds: float) -> bool:
    """Finish what is being sent. Another signal cuts it."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: server.cut())
    return server.drain(seconds)


def _publisher(server: Server, options: Mapping[str, Any], stack: ExitStack, on_event: Subscriber) -> Any:
    """Publish the metrics as the options say; return the function that is called now and then."""
    from fetcher.telemetry.endpoint import Site
    from fetcher.telemetry.endpoint import serving as published
    from fetcher.telemetry.textfile import Textfile

    metrics = with_labels(server.counts.metrics, options)
    if "metrics_port" in options:
        site = Site(metrics, {})
        where = stack.enter_context(published(options.get("metrics_address"), options["metrics_port"], site))
        on_event(Listening(where, site.paths))
    textfile = Textfile(options["metrics_file"], metrics) if "metrics_file" in options else None

    def publish() -> None:
        if textfile is not None and (warning := textfile.write()) is not None:
            on_event(warning)

    return publish
