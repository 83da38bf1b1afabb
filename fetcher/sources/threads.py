"""Blocking calls of libraries that may hang, such as those that find or refresh credentials over the network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from fetcher.errors import FetchError, Unauthorized

T = TypeVar("T")


async def on_daemon_thread(call: Callable[[], T], *, what: str) -> T:
    """Return the result of `call`, which runs on a thread of its own. Raises its FetchError; Unauthorized for any other error.

    `what` completes "cannot get ...". Unlike a thread of an executor, a daemon thread is not joined at exit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

    def work() -> None:
        try:
            result, error = call(), None
        except FetchError as caught:
            result, error = None, caught
        except Exception as caught:  # noqa: BLE001 - the caller gets it, without what may be a secret in its text
            result, error = None, Unauthorized(f"cannot get {what}: {type(caught).__name__}")
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True, name="credentials").start()
    return await future
