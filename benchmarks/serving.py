"""`fetcher serve` against nginx and aiohttp's own server: the same files, the same requests, in turns.

::

    python -m benchmarks.serving                        # 8 connections, ranges of 16 MiB, 7 rounds of 2 GiB
    python -m benchmarks.serving --tls

Each connection has a client process of its own: threads of one would wait for each other's interpreter lock, and that wait
would be measured. Without TLS they throw the bytes away in the kernel (MSG_TRUNC). All servers speak the same version of TLS
with the same cipher, which is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import trustme

from benchmarks.disk import workspace
from benchmarks.installation import CHECKOUT
from benchmarks.nginx import free_ports, running
from fetcher.cache.offering import Offers

GB = 1e9
MiB = 1024 * 1024
CHUNK = 16 * MiB
_AIOHTTP = """
import asyncio, ssl, sys
from aiohttp import web
port, directory, chain, key = int(sys.argv[1]), *sys.argv[2:5]
application = web.Application()
application.router.add_static("/", directory)
context = None
if chain:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
web.run_app(application, host="127.0.0.1", port=port, ssl_context=context, print=None, access_log=None)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print wall time, rate and processor time of each server."""
    parser = argparse.ArgumentParser(description="servers of files")
    parser.add_argument("--connections", type=int, nargs="+", default=[8])
    parser.add_argument("--chunks", type=int, default=128, help="ranges of 16 MiB in a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args(argv)
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else CHECKOUT / ".bench"  # noqa: S108 - memory, not a place for secrets
    with workspace(base) as place:
        root, files = _published(place)
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(place / "key.pem")
        for link in certificate.cert_chain_pems:
            link.write_to_path(place / "chain.pem", append=True)
        pem = (place / "chain.pem", place / "key.pem") if given.tls else None
        with _nginx(place, root, pem) as nginx, _fetcher(root, pem) as ours, _aiohttp(place, root, pem) as plain:
            servers = {
                "nginx": (*nginx, [f"/{key}/{file}" for key, _, file in files]),
                "fetcher serve": (*ours, [f"/v1/{key}/{listing}/{file}" for key, listing, file in files]),
                "aiohttp": (*plain, [f"/{key}/{file}" for key, _, file in files]),
            }
            print(*(f"{name}: {_cipher(url)}" for name, (_, url, _) in servers.items()), sep="\n")
            for connections in given.connections:
                figures: dict[str, list[Cost]] = {}
                for _ in range(given.rounds):
                    for name, (process, url, paths) in servers.items():
                        figures.setdefault(name, []).append(_round(process, url, paths, given.chunks, connections))
                print(f"{connections} connections")
                _print(figures, given.chunks * CHUNK)
    return 0


class Cost(NamedTuple):
    """Seconds: of the clock, and of the processors in the server and in the clients."""

    wall: float
    server: float
    clients: float


def _print(figures: dict[str, list[Cost]], count: int) -> None:
    first = statistics.median(cost.wall for cost in figures["nginx"])
    for name, costs in figures.items():
        walls = sorted(cost.wall for cost in costs)
        wall, server, clients = (statistics.median(column) for column in zip(*costs, strict=True))
        print(
            f"{name:14} {wall:.3f} s ({walls[0]:.3f}-{walls[-1]:.3f})  {count / wall / GB:.2f} GB/s  "
            f"{first / wall:.2f} of nginx  CPU {server / (count / GB):.3f} s/GB, clients {clients / (count / GB):.3f}"
        )


def _published(place: Path) -> tuple[Path, list[tuple[str, str, str]]]:
    """Two files of 256 MiB, fetched into a root; the key, listing and path of each."""
    model, root = place / "model", place / "root"
    model.mkdir()
    for number in range(2):
        with (model / f"model-{number}.safetensors").open("wb") as stream:
            for _ in range(16):
                stream.write(os.urandom(CHUNK))
    command = [sys.executable, "-m", "fetcher", "fetch", str(model), "--cache-dir", str(root), "--hard-link"]
    subprocess.run([*command, "--progress", "none"], check=True, stdout=subprocess.DEVNULL)
    (key,) = [path.name for path in root.iterdir() if path.name != ".fetcher"]
    offer = Offers(root).find(key)
    assert offer is not None
    return root, [(key, offer.listing, path) for path in offer.files]


@contextmanager
def _nginx(place: Path, root: Path, pem: tuple[Path, Path] | None) -> Iterator[tuple[int, str]]:
    (port,) = free_ports(1)
    # Before 1.23.4 nginx has TLS 1.3 only if it is told to, and a record of 1.2 costs less.
    tls = f"ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {pem[0]}; ssl_certificate_key {pem[1]};" if pem else ""
    listen = f"listen 127.0.0.1:{port}{' ssl' if pem else ''}; {tls} root {root};"
    with running(place, f"server {{ {listen} }}"):
        pid = int((place / "pid").read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        yield int(children[0]), f"{'https' if pem else 'http'}://127.0.0.1:{port}"


@contextmanager
def _fetcher(root: Path, pem: tuple[Path, Path] | None) -> Iterator[tuple[int, str]]:
    words = ["-m", "fetcher", "serve", "--cache-dir", str(root), "--listen", "127.0.0.1:0"]
    words += ["--tls-cert", str(pem[0]), "--tls-key", str(pem[1])] if pem else []
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def _aiohttp(place: Path, root: Path, pem: tuple[Path, Path] | None) -> Iterator[tuple[int, str]]:
    (port,) = free_ports(1)
    (place / "plain.py").write_text(_AIOHTTP)
    words = [str(place / "plain.py"), str(port), str(root), *(map(str, pem) if pem else ("", ""))]
    with subprocess.Popen([sys.executable, *words]) as process:
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield process.pid, f"{'https' if pem else 'http'}://127.0.0.1:{port}"
        finally:
            process.terminate()


def _round(process: int, url: str, paths: Sequence[str], chunks: int, connections: int) -> Cost:
    """Get `chunks` ranges over `connections`."""
    work = [(paths[number % len(paths)], number // len(paths) % 16 * CHUNK) for number in range(chunks)]
    fork = multiprocessing.get_context("fork")
    clients = [fork.Process(target=_client, args=(url, work[index::connections])) for index in range(connections)]
    server, spent, began = _cpu(process), _spent_by_clients(), time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    wall = time.monotonic() - began
    assert all(client.exitcode == 0 for client in clients), "a client failed"
    return Cost(wall, _cpu(process) - server, _spent_by_clients() - spent)


def _client(url: str, work: Sequence[tuple[str, int]]) -> None:
    peer = _connected(url)
    flags = 0 if isinstance(peer, ssl.SSLSocket) else socket.MSG_TRUNC
    room = memoryview(bytearray(MiB))
    with peer:
        for path, start in work:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-{start + CHUNK - 1}\r\n\r\n"
            peer.sendall(request.encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += peer.recv(1)
            assert b" 206 " in head.partition(b"\r\n")[0], head
            left = CHUNK
            while left:
                left -= peer.recv_into(room, min(left, MiB), flags)


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    plain = socket.create_connection((parts.hostname, parts.port))
    return _encrypted(plain) if parts.scheme == "https" else plain


def _cipher(url: str) -> str:
    with _connected(url) as peer:
        return " ".join(map(str, peer.cipher() or ())) if isinstance(peer, ssl.SSLSocket) else "no TLS"


def _encrypted(plain: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def _cpu(process: int) -> float:
    """Seconds of the processors, by the clock of the process, which does not count in ticks (clock_getcpuclockid(3))."""
    return time.clock_gettime(~process << 3 | 2)


def _spent_by_clients() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    sys.exit(main())
