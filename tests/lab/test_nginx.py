"""The lab's nginx serves ranges and TLS, and misbehaves as configured."""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from tests.lab.fixtures import StartNginx
from tests.lab.nginx import Behaviour, running_nginx
from tests.lab.waiting import wait_until

CONTENT = bytes(range(256)) * 400


class KeepRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Return the 302 instead of following it."""


def get(url: str, *, byte_range: str | None = None, authority: Path | None = None) -> tuple[int, Message, bytes]:
    """Return status, headers and body, whatever the status."""
    request = urllib.request.Request(url, headers={"Range": byte_range} if byte_range else {})
    context = ssl.create_default_context(cafile=authority)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), KeepRedirects)
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    path.mkdir()
    (path / "shard").write_bytes(CONTENT)
    return path


def test_a_range_is_served(nginx: StartNginx, directory: Path) -> None:
    status, headers, body = get(f"{nginx(directory).url}/shard", byte_range="bytes=100-199")
    assert (status, body) == (206, CONTENT[100:200])
    assert headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"


def test_a_client_with_the_authority_trusts_the_certificate(nginx: StartNginx, directory: Path, authority_file: Path) -> None:
    status, _, body = get(f"{nginx(directory).tls_url}/shard", byte_range="bytes=0-9", authority=authority_file)
    assert (status, body) == (206, CONTENT[:10])


def test_a_client_without_the_authority_refuses_the_certificate(nginx: StartNginx, directory: Path) -> None:
    with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
        get(f"{nginx(directory).tls_url}/shard")


def test_ranges_can_be_ignored(nginx: StartNginx, directory: Path) -> None:
    server = nginx(directory, Behaviour(max_ranges=0))
    status, _, body = get(f"{server.url}/shard", byte_range="bytes=100-199")
    assert (status, body) == (200, CONTENT)


def test_a_redirect_keeps_path_and_query(nginx: StartNginx, directory: Path) -> None:
    target = nginx(directory)
    status, headers, _ = get(nginx(directory, Behaviour(redirect_to=target.url)).url + "/shard?signature=a%2Fb")
    assert (status, headers["Location"]) == (302, f"{target.url}/shard?signature=a%2Fb")
    assert get(headers["Location"])[2] == CONTENT


def test_unavailability_has_a_retry_after(nginx: StartNginx, directory: Path) -> None:
    status, headers, _ = get(nginx(directory, Behaviour(unavailable_for=7)).url + "/shard")
    assert (status, headers["Retry-After"]) == (503, "7")


def test_the_rate_limit_delays_the_body(nginx: StartNginx, directory: Path) -> None:
    port = urlsplit(nginx(directory, Behaviour(limit_rate=1000)).url).port
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
        connection.sendall(b"GET /shard HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            read_to_the_end(connection)


def read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(64 * 1024):
        pass


def test_requests_are_logged_with_their_ranges(nginx: StartNginx, directory: Path) -> None:
    server = nginx(directory)
    get(f"{server.url}/shard", byte_range="bytes=0-9")
    get(f"{server.url}/absent")
    wait_until(lambda: len(server.requests()) == 2, "nginx has logged both requests")
    assert server.requests()[0] == 'GET /shard 206 10 "bytes=0-9"'
    assert server.requests()[1].startswith("GET /absent 404 ")


def test_the_port_is_closed_after_the_end(directory: Path, tmp_path: Path, authority: trustme.CA) -> None:
    with running_nginx(directory, tmp_path / "nginx", authority=authority) as server:
        assert get(f"{server.url}/shard")[0] == 200
    with pytest.raises(urllib.error.URLError, match="Connection refused"):
        get(f"{server.url}/shard")
