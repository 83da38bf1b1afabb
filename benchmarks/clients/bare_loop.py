"""A minimal download in Python: ranges by blocking sockets on threads, with `recv_into` and `pwrite`.

It has no listing, checks, digests, retries or syncs. It is the limit for clients, not one of them.
Addresses come from a file of lines `URL<TAB>NAME<TAB>SIZE`. If one redirects, as the Hub does, it asks there instead.
"""

from __future__ import annotations

import argparse
import os
import queue
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

LONGEST_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `start` to `stop`, half-open, of `url`, for the file at `path`."""

    url: str
    path: Path
    start: int
    stop: int


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("addresses", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--range", type=int, required=True, help="bytes of one request")
    parser.add_argument("--buffer", type=int, required=True, help="bytes of one connection's buffer")
    arguments = parser.parse_args()
    parts: queue.SimpleQueue[Part] = queue.SimpleQueue()
    for line in arguments.addresses.read_text().splitlines():
        url, name, size = line.split("\t")
        for start in range(0, int(size), arguments.range):
            parts.put(Part(url, arguments.directory / name, start, min(start + arguments.range, int(size))))
    with ThreadPoolExecutor(arguments.connections) as pool:
        for running in [pool.submit(work, parts, bytearray(arguments.buffer)) for _ in range(arguments.connections)]:
            running.result()


def work(parts: queue.SimpleQueue[Part], buffer: bytearray) -> None:
    """Download parts over one connection to each origin until none remains."""
    connections: dict[str, socket.socket] = {}
    while True:
        try:
            part = parts.get_nowait()
        except queue.Empty:
            return
        descriptor = os.open(part.path, os.O_WRONLY | os.O_CREAT, 0o644)
        while part.url:
            origin = urlsplit(part.url).netloc
            if origin not in connections:
                connections[origin] = connect(part.url)
            part = replace(part, url=receive(connections[origin], part, descriptor, memoryview(buffer)))
        os.close(descriptor)


def connect(url: str) -> socket.socket:
    parsed = urlsplit(url)
    host, port = str(parsed.hostname), parsed.port or 0
    plain = socket.create_connection((host, port))
    if parsed.scheme == "http":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def receive(connection: socket.socket, part: Part, descriptor: int, buffer: memoryview) -> str:
    """Write the part to the file `descriptor`; return an empty string, or the address that the server redirects to."""
    parsed = urlsplit(part.url)
    target = f"{parsed.path}?{parsed.query}" if parsed.query else parsed.path
    request = f"GET {target} HTTP/1.1\r\nHost: {parsed.netloc}\r\nRange: bytes={part.start}-{part.stop - 1}\r\n\r\n"
    connection.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(LONGEST_HEAD)
        if not piece:
            raise ConnectionError("the server closed the connection")
        head += piece
    head, _, begun = head.partition(b"\r\n\r\n")
    if b" 302 " in head.splitlines()[0]:
        skip(connection, int(header(head, b"Content-Length")) - len(begun))
        return header(head, b"Location")
    if b" 206 " not in head.splitlines()[0]:
        raise ConnectionError(head.splitlines()[0].decode())
    position = part.start + os.pwrite(descriptor, begun, part.start)
    while position < part.stop:
        count = fill(connection, buffer[: part.stop - position])
        os.pwrite(descriptor, buffer[:count], position)
        position += count
    return ""


def header(head: bytes, name: bytes) -> str:
    """Return the value of a header that the server always sends. Raises StopIteration."""
    return next(line for line in head.splitlines() if line.startswith(name + b": ")).partition(b": ")[2].decode()


def skip(connection: socket.socket, count: int) -> None:
    """Drop the next `count` bytes."""
    while count > 0 and (piece := connection.recv(min(count, LONGEST_HEAD))):
        count -= len(piece)


def fill(connection: socket.socket, buffer: memoryview) -> int:
    """Fill `buffer` from the connection, for few large writes, and return the bytes received."""
    count = 0
    while count < len(buffer):
        received = connection.recv_into(buffer[count:])
        if received == 0:
            raise ConnectionError("the server closed the connection")
        count += received
    return count


if __name__ == "__main__":
    main()
