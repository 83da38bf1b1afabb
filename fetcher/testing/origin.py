"""An origin for tests and demonstrations: a Hub and its CDN on two loopback ports.

It implements the Hub's protocol as its official client uses it, logs requests, and misbehaves on demand::

    with Origin() as origin:
        repository = origin.add_repo("org/model", {"config.json": b"{}", "model.safetensors": Path("weights")})
        origin.faults.add(Fault(Reset(after=1000), origin="cdn", times=1))
        ...  # point a client at origin.endpoint
        assert [request.path for request in origin.requests if request.origin == "hub"] == [...]

It runs in a separate thread. `python -m fetcher.testing DIR` serves a directory from a separate process, so that a measured
client does not share the interpreter with it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from fetcher.testing.cdn import Cdn
from fetcher.testing.certificates import Certificates
from fetcher.testing.content import Content, content_of
from fetcher.testing.exchange import OriginName, Request, Response
from fetcher.testing.faults import Faults
from fetcher.testing.hub import Addresses, Hub
from fetcher.testing.listener import Listener, Rates
from fetcher.testing.repository import Files, Repository, RepositoryKind, make_commit
from fetcher.testing.signing import Signer
from fetcher.testing.throttle import Throttle

MiB = 1024 * 1024


class Origin:
    """A Hub and a CDN. `tokens` are valid tokens, in addition to those of readers of repositories; others get 401.

    `page_size` is in entries. `lfs_threshold` is in bytes: the CDN serves files of this size and larger.
    `signature_lifetime` is in seconds, `signature_uses` in requests for each signed address. With `resolve_cache` the Hub
    redirects its resolve addresses to relative ones. `tls` names the origins with https, whose certificates `ca_file` verifies.
    `cdn_host` is the host in addresses of the CDN. `prefix` is the path of the Hub, such as `/artifactory/hub`; `addresses` is
    how it writes its own addresses. Any thread can call methods.
    """

    def __init__(
        self,
        *,
        tokens: Iterable[str] = (),
        page_size: int = 1000,
        lfs_threshold: int = 10 * MiB,
        signature_lifetime: float = 3600.0,
        signature_uses: int | None = None,
        redirect_status: Literal[302, 307] = 302,
        resolve_cache: bool = False,
        tls: Collection[OriginName] = (),
        host: str = "127.0.0.1",
        cdn_host: str | None = None,
        prefix: str = "",
        addresses: Addresses | None = None,
        port: int = 0,
        cdn_port: int = 0,
    ) -> None:
        self.faults = Faults()
        self.rates = Rates()
        self.signer = Signer(lifetime=signature_lifetime, uses=signature_uses, clock=time.time)
        self.certificates = Certificates() if tls else None
        self._lfs_threshold = lfs_threshold
        self._tls = tls
        self._hosts: dict[OriginName, str] = {"hub": host, "cdn": cdn_host or host}
        self._ports: dict[OriginName, int] = {"hub": port, "cdn": cdn_port}
        self._requests: list[Request] = []
        self._hub = Hub(
            signer=self.signer,
            tokens=set(tokens),
            page_size=page_size,
            redirect_status=redirect_status,
            resolve_cache=resolve_cache,
            endpoint=lambda: self.endpoint,
            cdn_endpoint=lambda: self.cdn_endpoint,
            prefix=prefix,
            addresses=addresses,
        )
        self._cdn = Cdn(signer=self.signer, blobs=self._hub.blobs)
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """The Hub's address without a final slash, as in HF_ENDPOINT."""
        return self._address("hub") + self._hub.prefix

    @property
    def cdn_endpoint(self) -> str:
        return self._address("cdn")

    @property
    def ca_file(self) -> Path:
        """The certificate authority to trust, as PEM. Raises ValueError if the origin has no TLS."""
        if self.certificates is None:
            raise ValueError("this origin has no TLS: give it tls=('hub', 'cdn')")
        return self.certificates.ca_file

    def add_repo(
        self,
        name: str,
        files: Files,
        *,
        kind: RepositoryKind = "model",
        revisions: Iterable[str] = ("main",),
        private: bool = False,
        gated: bool = False,
        readers: Iterable[str] = (),
    ) -> Repository:
        """Add a repository with one commit that all of `revisions` point to. `readers` are tokens; see Repository."""
        repository = Repository(name, kind, private, gated, frozenset(readers))
        self._hub.tokens |= repository.readers
        self._hub.repositories[kind, name] = repository
        for revision in {"main": None, **dict.fromkeys(revisions)}:
            self.update_repo(repository, files, revision=revision)
        return repository

    def update_repo(self, repository: Repository, files: Files, *, revision: str = "main") -> str:
        """Move `revision` to a commit with exactly `files` and return its id. The old commit stays reachable."""
        commit = make_commit(files, lfs_threshold=self._lfs_threshold)
        repository.move(revision, commit)
        return commit.id

    def remove_repo(self, repository: Repository) -> None:
        """Remove the repository with all its commits."""
        del self._hub.repositories[repository.kind, repository.name]

    def add_file(self, path: str, what: bytes | Path | Content) -> str:
        """Serve `what` at `path` (with its leading slash) on the CDN, unsigned, and return the address."""
        self._cdn.files[path] = content_of(what)
        return self.cdn_endpoint + quote(path)

    def remove_file(self, path: str) -> None:
        del self._cdn.files[path]

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in order of arrival."""
        return tuple(self._requests)

    def clear_requests(self) -> None:
        self._requests.clear()

    def expire_signatures(self) -> None:
        """Expire all signed addresses: they get 403."""
        self.signer.expire()

    def throttle(self, *, total: float | None = None, per_connection: float | None = None) -> None:
        """Limit bodies, in bytes a second; None means no limit. Applies from each connection's next request on."""
        self.rates = Rates(total, per_connection)

    def start(self) -> None:
        """Start to listen; after a `stop`, on the same ports. Raises OSError if a port is in use."""
        ready: list[OSError | None] = []
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready, started), name="origin", daemon=True)
        self._thread.start()
        started.wait()
        if ready and ready[0] is not None:
            self._thread.join()
            self._thread = None
            raise ready[0]

    def stop(self) -> None:
        """Abort all connections and stop listening. Idempotent."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._thread is None else f"hub {self.endpoint}, cdn {self.cdn_endpoint}"
        return f"<Origin {state}, {len(self._requests)} requests>"

    def _address(self, name: OriginName) -> str:
        scheme = "https" if name in self._tls else "http"
        return f"{scheme}://{self._hosts[name]}:{self._ports[name]}"

    def _run(self, failure: list[OSError | None], started: threading.Event) -> None:
        asyncio.run(self._serve(failure, started))

    async def _serve(self, failure: list[OSError | None], started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        total = Throttle(None)
        listeners = [self._listener("hub", total), self._listener("cdn", total)]
        try:
            for listener in listeners:
                self._ports[listener.name] = await listener.listen(self._ports[listener.name])
            started.set()
            await self._stopping.wait()
        except OSError as error:
            failure.append(error)
        finally:
            for listener in listeners:
                await listener.close()
            started.set()

    def _listener(self, name: OriginName, total: Throttle) -> Listener:
        context = self.certificates.server_context() if self.certificates and name in self._tls else None
        answering = self._hub.answer if name == "hub" else self._cdn.answer

        async def answer(request: Request) -> Response:
            return answering(request)

        return Listener(
            name=name,
            answer=answer,
            faults=self.faults,
            log=self._requests.append,
            rates=lambda: self.rates,
            total=total,
            tls=context,
            host=self._hosts["hub"],
        )
