"""A response body on its way in: exactly as long as announced, or an error. The seam for a faster receive path.

aiohttp's `iter_any` hands over what its parser has gathered, without a copy or a thread of ours; larger writes are made by
those who gather the pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from fetcher.errors import BadResponse, Stalled, Unreachable


async def received(response: aiohttp.ClientResponse, *, length: int | None, what: str, stall: float) -> AsyncIterator[bytes]:
    """The body's pieces: `length` bytes in all, or up to the sender's proper end when that is None.

    Raises Stalled, Unreachable, BadResponse.
    """
    seen = 0
    try:
        async for piece in response.content.iter_any():
            seen += len(piece)
            if length is not None and seen > length:
                raise BadResponse(f"the server sends more than the {length:,} bytes it announced for {what}")
            if piece:
                yield piece
    except (aiohttp.SocketTimeoutError, TimeoutError):
        raise Stalled(f"nothing came for {stall:.0f} s in the middle of {what} (--timeout-stall)") from None
    except aiohttp.ClientPayloadError as error:
        raise Unreachable(f"the connection ended after {seen:,} bytes of {what}") from error
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
        raise Unreachable(f"the connection broke after {seen:,} bytes of {what}: {type(error).__name__}") from error
    if length is not None and seen != length:
        raise BadResponse(f"the server announced {length:,} bytes for {what} and ended after {seen:,}")
