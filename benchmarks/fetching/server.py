"""nginx as Hub and CDN: static metadata on one port, a redirect for each file to another port; HTTP or HTTPS.

It has one worker, pinned to one processor for all contenders. Clients are not pinned.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from benchmarks.fetching.publishing import COMMIT, Repository, revision_document, tree_document


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `hub` and `cdn` are origins without a final slash; `authority` is the CA file, None without TLS."""

    hub: str
    cdn: str
    repository: Repository
    authority: Path | None
    workspace: Path

    def address(self, name: str) -> str:
        """Return the CDN address of a file, the target of the Hub's redirect."""
        return f"{self.cdn}/{name}"

    def sent(self) -> int:
        """Return the bytes of bodies that the CDN has sent in completed requests."""
        return sum(map(int, (self.workspace / "sent").read_text().split()))


_CONFIGURATION = """\
daemon off;
worker_processes 1;
worker_cpu_affinity {affinity};
pid {workspace}/pid;
error_log {workspace}/error.log;
{user}
events {{ worker_connections 2048; }}
http {{
    log_format sent '$body_bytes_sent';
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path {workspace}/temporary;
    proxy_temp_path {workspace}/temporary;
    fastcgi_temp_path {workspace}/temporary;
    uwsgi_temp_path {workspace}/temporary;
    scgi_temp_path {workspace}/temporary;
    ssl_certificate {workspace}/chain.pem;
    ssl_certificate_key {workspace}/key.pem;
    map_hash_max_size 65536;
    map_hash_bucket_size 256;
    map $file $digest {{ include {workspace}/digests; }}
    server {{
        listen {host}:{hub}{tls};
        location ~ ^/api/models/bench/[^/]+/revision/main$ {{
            default_type application/json;
            alias {workspace}/revision.json;
        }}
        location ~ ^/api/models/bench/[^/]+-undigested/tree/ {{
            default_type application/json;
            alias {workspace}/undigested.json;
        }}
        location ~ ^/api/models/bench/[^/]+/tree/ {{
            default_type application/json;
            alias {workspace}/tree.json;
        }}
        location ~ ^/bench/[^/]+/resolve/[^/]+/(?<file>.+)$ {{
            add_header X-Repo-Commit {commit};
            add_header X-Linked-Etag '"$digest"';
            add_header X-Linked-Size {size};
            return 302 {cdn}/$file;
        }}
    }}
    server {{
        listen {host}:{bytes}{tls};
        root {directory};
        access_log {workspace}/sent sent;
        {limit}
    }}
}}
"""


@contextmanager
def serving(
    repository: Repository,
    workspace: Path,
    *,
    tls: bool = False,
    host: str = "127.0.0.1",
    within: Sequence[str] = (),
    limit_rate: int | None = None,
) -> Iterator[Server]:
    """Serve `repository` at `host` until the block ends.

    `within`: a prefix of the command, such as one that enters a network namespace. `limit_rate`: bytes a second of each
    connection to the CDN. Raises RuntimeError if nginx does not start.
    """
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    authority = _certified(workspace, host)
    hub, bytes_ = _free_ports(2)
    scheme = "https" if tls else "http"
    server = Server(
        f"{scheme}://{host}:{hub}", f"{scheme}://{host}:{bytes_}", repository, authority if tls else None, workspace
    )
    (workspace / "revision.json").write_text(revision_document(repository))
    (workspace / "tree.json").write_text(tree_document(repository, digests=True))
    (workspace / "undigested.json").write_text(tree_document(repository, digests=False))
    (workspace / "digests").write_text("".join(f"{file.name} {file.sha256};\n" for file in repository.files))
    configuration = _CONFIGURATION.format(
        workspace=workspace,
        directory=repository.directory,
        affinity=format(1 << ((os.cpu_count() or 1) - 1), "b"),
        user="user root;" if os.geteuid() == 0 else "",
        commit=COMMIT,
        size=repository.shape.size,
        host=host,
        hub=hub,
        bytes=bytes_,
        cdn=server.cdn,
        tls=" ssl" if tls else "",
        limit=f"limit_rate {limit_rate};" if limit_rate else "",
    )
    (workspace / "nginx.conf").write_text(configuration)
    process = _started(workspace, within)
    try:
        _wait_until_up(process, workspace)
        yield server
    finally:
        _stop(process)


def _certified(workspace: Path, host: str) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert(host)
    certificate.private_key_pem.write_to_path(workspace / "key.pem")
    for link in certificate.cert_chain_pems:
        link.write_to_path(workspace / "chain.pem", append=True)
    authority.cert_pem.write_to_path(workspace / "authority.pem")
    return workspace / "authority.pem"


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _started(workspace: Path, within: Sequence[str]) -> subprocess.Popen[bytes]:
    executable = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        raise RuntimeError("nginx is missing; on Debian: apt-get install nginx-light")
    words = [executable, "-p", str(workspace), "-e", str(workspace / "error.log"), "-c", str(workspace / "nginx.conf")]
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*within, *words], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _wait_until_up(process: subprocess.Popen[bytes], workspace: Path) -> None:
    """Wait for nginx's pid file, which it writes after it listens."""
    deadline = time.monotonic() + 10
    while not (workspace / "pid").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nginx did not start: {(workspace / 'error.log').read_text()}")
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate nginx. Kill the whole session on a timeout, so that no worker outlives its master."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
