"""The HTTPS server that the API server asks before it stores a cache or a service: from what is watched, without a request.

Every replica answers, whether it leads or not. Until it knows the cluster it answers 503, and the API server goes on as the
configuration of the webhook says.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from cluster.kserve.reviewing import answered, verdict
from cluster.kserve.world import World
from fetcher.certificates import CertificateFiles, Certificates
from fetcher.errors import ConfigurationError

PATH = "/review"
_LARGEST = 8 * 1024 * 1024
"""Bytes of a review, which has an object before and after: etcd takes 1.5 MiB of one."""
_PATIENCE = 10.0
"""Seconds for a request to arrive: the API server waits for five. Strangers can reach the port too."""
_MOST = 64
"""Requests at once. With their size it bounds the memory that strangers can hold, and one takes a millisecond."""


class Webhooks:
    """Answers reviews by what `world` returns, None while the cluster is not known. `warn` is told of unusable certificates."""

    def __init__(self, files: CertificateFiles, world: Callable[[], World | None], warn: Callable[[str], None]) -> None:
        """Raises ConfigurationError for certificate files that cannot be used."""
        self._certificates = Certificates(files, warn)
        self._world = world
        self._under_way = 0

    async def serve(self, address: str | None, port: int, on_listening: Callable[[str], None]) -> None:
        """Serve until cancelled. Raises ConfigurationError if it cannot listen."""
        application = web.Application(client_max_size=_LARGEST)
        application.router.add_post(PATH, self._answer)
        runner = web.AppRunner(application, access_log=None, keepalive_timeout=60.0, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, port, ssl_context=self._context()).start()
            host, bound = runner.addresses[0][:2]
            on_listening(f"https://{f'[{host}]' if ':' in host else host}:{bound}{PATH}")
            await asyncio.Event().wait()
        except OSError as error:
            problem = (error.strerror or str(error)).lower()
            raise ConfigurationError(
                f"cannot listen for webhooks on {address or 'any address'}, port {port}: {problem}; choose another port"
            ) from error
        finally:
            await runner.cleanup()

    def _context(self) -> ssl.SSLContext:
        """A context whose connections use the certificates of their time."""
        context = self._certificates.context()

        def renew(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = self._certificates.context()

        context.sni_callback = renew
        return context

    async def _answer(self, request: web.Request) -> web.Response:
        if self._under_way >= _MOST:
            return web.Response(status=503, text="too many requests at once\n")
        self._under_way += 1
        try:
            async with asyncio.timeout(_PATIENCE):
                text = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the request does not arrive\n")
        finally:
            self._under_way -= 1
        return self._judged(text)

    def _judged(self, text: bytes) -> web.Response:
        review = _review(text)
        if review is None:
            return web.Response(status=400, text="this is no AdmissionReview\n")
        if (world := self._world()) is None:
            return web.Response(status=503, text="the cluster is not known yet\n")
        return web.json_response(answered(review, verdict(review["request"], world)))


def _review(text: bytes) -> Mapping[str, Any] | None:
    """Return the review in `text`, None if there is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match found:
        case {"apiVersion": str(), "kind": "AdmissionReview", "request": {"uid": str()}}:
            return dict(found)
        case _:
            return None
