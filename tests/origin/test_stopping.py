"""A stopped origin leaves no connection open, whatever its clients do."""

from __future__ import annotations

import gc
import socket
import warnings
from urllib.parse import urlsplit

import pytest

from fetcher.testing.origin import Origin


def connected(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(address).port or 0))


@pytest.mark.parametrize("tls", [(), ("cdn",)], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    "sent", [b"", b"GET /", b"GET /big HTTP/1.1\r\n\r\n", b"GET /big HTTP/1.1\r\nConnection: close\r\n\r\n"]
)
def test_a_stopped_origin_has_closed_all_transports(tls: tuple[()] | tuple[str], sent: bytes) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(20):
            with Origin(tls=["cdn"] if tls else []) as origin:
                origin.add_file("/big", bytes(8 * 1024 * 1024))
                clients = [connected(origin.cdn_endpoint) for _ in range(5)]
                for client in clients:
                    client.sendall(sent)
            for client in clients:
                client.close()
        gc.collect()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []
