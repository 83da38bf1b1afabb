"""The way to the API server, which can be cut: a forwarder of TCP on loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

_BLOCK = 65536


class Link:
    """Forwards connections to `target`. While it is cut, nobody gets through."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._cut = False
        self.refused = 0
        """Connections that came while it was cut."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="link")
        self._thread.start()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        with self._lock:
            self._cut = True
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._cut = False

    def close(self) -> None:
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._cut:
                    self.refused += 1
                    near.close()
                    continue
                far = socket.create_connection(self._target, timeout=10)
                far.settimeout(None)
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True, name="link").start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(_BLOCK):
                sink.sendall(block)
        with self._lock:
            for each in (source, sink):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                self._open.discard(each)
        source.close()


@contextmanager
def linked(kubeconfig: Path, directory: Path) -> Iterator[tuple[Link, Path]]:
    """Provide a link to the API server of `kubeconfig`, and a kubeconfig that uses it."""
    document = yaml.safe_load(kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    link = Link((host, int(port)))
    try:
        cluster["server"] = link.address
        path = directory / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        yield link, path
    finally:
        link.close()
