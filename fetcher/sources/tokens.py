"""Credentials that come over the network: on a thread, one at a time, in bounded time, renewed before they expire."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import field
from typing import Generic, Protocol, TypeVar

from fetcher.errors import FetchError, Unauthorized, Unreachable
from fetcher.values import dataclass

T = TypeVar("T")

LONGEST = 30.0
"""Seconds that a library may take. A metadata service answers within one, an identity service within ten."""
_MARGIN = 60.0
"""Seconds before its expiry when a token is renewed: clocks differ, and a listing takes time."""


class Expiring(Protocol):
    """A credential that may expire."""

    def stale(self) -> bool:
        """Whether it should be renewed before it is used."""
        ...


C = TypeVar("C", bound=Expiring)


def expires_soon(expires: float | None) -> bool:
    """Whether the Unix time `expires` is less than a minute away; None is never."""
    return expires is not None and time.time() > expires - _MARGIN


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. `expires` is Unix time, None if unknown."""

    text: str = field(repr=False)
    expires: float | None = None

    def stale(self) -> bool:
        return expires_soon(self.expires)


class Renewed(Generic[C]):
    """The present credential of one caller. `get` blocks and returns a new one, or None if there is none.

    `given_by` names where it comes from, for messages.
    """

    def __init__(self, get: Callable[[], C | None], given_by: str, *, longest: float = LONGEST) -> None:
        self._get = get
        self._longest = longest
        self._lock = asyncio.Lock()
        self._known = False
        self.given_by = given_by
        self.present: C | None = None

    async def current(self, *, refused: C | None = None) -> C | None:
        """Return a credential that is not `refused`, the one that a server has just refused. Raises Unauthorized, Unreachable.

        Concurrent callers wait for the first. The caller compares: a credential that cannot be renewed comes again.
        """
        async with self._lock:
            stale = self.present is not None and (self.present.stale() or self.present is refused)
            if not self._known or stale:
                self.present = await on_daemon_thread(
                    self._get, what=f"credentials from {self.given_by}", longest=self._longest
                )
                self._known = True
            return self.present


Tokens = Renewed[Token]


def silence(library: str) -> None:
    """Keep what `library` logs away from stderr, whose last line is ours. Handlers that a program has set up still get it."""
    logger = logging.getLogger(library)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def static(token: str | None, given_by: str) -> Tokens:
    """The tokens of a caller with one token that is never renewed, or without any."""
    only = Token(token) if token else None
    return Tokens(lambda: only, given_by)


async def on_daemon_thread(call: Callable[[], T], *, what: str, longest: float | None = None) -> T:
    """Run a blocking call that may hang. Unlike a thread of an executor, a daemon thread is not joined at exit.

    Raises FetchErrors of `call`, Unauthorized for its other errors, and Unreachable after `longest` seconds. `what` completes
    "cannot get ...". An error is shown by its type only, since its text may have a secret.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)  # type: ignore[arg-type]  # T may be None

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = call()
        except FetchError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - the caller gets it
            error = Unauthorized(f"cannot get {what}: {type(caught).__name__}; check that they are complete and valid")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True, name="token").start()
    try:
        async with asyncio.timeout(longest):
            return await future
    except TimeoutError:
        raise Unreachable(
            f"cannot get {what}: no answer within {longest:.0f} s; check the identity or metadata service"
        ) from None
