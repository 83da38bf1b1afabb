"""Both event loops, plain and over TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.transport.peer import Run


@pytest.fixture(params=["plain, asyncio", "plain, uvloop", "TLS, asyncio", "TLS, uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Each test runs on both event loops, plain and over TLS: their transports have nothing in common."""
    kind, _, loop = request.param.partition(", ")
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    return Run(factory, tls=kind == "TLS", directory=tmp_path)
