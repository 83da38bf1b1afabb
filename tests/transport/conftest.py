"""A fixture that runs a test on every event loop, plain and over TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from fetcher.transport.tls import TlsEventLoop
from tests.transport.peer import Run


@pytest.fixture(params=["plain, asyncio", "plain, ours", "TLS, asyncio", "TLS, uvloop", "TLS, ours"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run the test on every event loop, plain and over TLS, because their transports are different."""
    kind, _, loop = request.param.partition(", ")
    factory = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop, "ours": TlsEventLoop}[loop]
    return Run(factory, tls=kind == "TLS", directory=tmp_path)
