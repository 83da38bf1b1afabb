"""nginx as Hub and CDN: static metadata on one port, a redirect for each file to another port; HTTP or HTTPS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trustme

from benchmarks.fetching.hub import COMMIT, revision_document, tree_document
from benchmarks.nginx import free_ports, running
from benchmarks.publishing import Repository


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `hub` and `cdn` are origins without a final slash; `authority` is the CA file, None without TLS."""

    hub: str
    cdn: str
    repository: Repository
    authority: Path | None
    workspace: Path
    processor_time: Callable[[], float]
    """Returns the seconds that the server has run so far."""

    def hub_address(self, name: str) -> str:
        """Return the Hub's address of a file, which redirects to `address`."""
        return f"{self.hub}/{self.repository.name}/resolve/{COMMIT}/{name}"

    def address(self, name: str) -> str:
        """Return the CDN address of a file, the target of the Hub's redirect."""
        return f"{self.cdn}/{name}"

    def sent(self) -> int:
        """Return the bytes of bodies that the CDN has sent in completed requests."""
        return sum(map(int, (self.workspace / "sent").read_text().split()))


_SERVERS = """\
    ssl_certificate {workspace}/chain.pem;
    ssl_certificate_key {workspace}/key.pem;
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
    hub, bytes_ = free_ports(2)
    scheme = "https" if tls else "http"
    server = Server(
        f"{scheme}://{host}:{hub}",
        f"{scheme}://{host}:{bytes_}",
        repository,
        authority if tls else None,
        workspace,
        processor_time=lambda: 0.0,
    )
    (workspace / "revision.json").write_text(revision_document(repository))
    (workspace / "tree.json").write_text(tree_document(repository, digests=True))
    (workspace / "undigested.json").write_text(tree_document(repository, digests=False))
    (workspace / "digests").write_text("".join(f"{file.name} {file.sha256};\n" for file in repository.files))
    servers = _SERVERS.format(
        workspace=workspace,
        directory=repository.directory,
        commit=COMMIT,
        size=repository.shape.size,
        host=host,
        hub=hub,
        bytes=bytes_,
        cdn=server.cdn,
        tls=" ssl" if tls else "",
        limit=f"limit_rate {limit_rate};" if limit_rate else "",
    )
    with running(workspace, servers, within=within) as processor_time:
        yield replace(server, processor_time=processor_time)


def _certified(workspace: Path, host: str) -> Path:
    authority = trustme.CA()
    certificate = authority.issue_cert(host)
    certificate.private_key_pem.write_to_path(workspace / "key.pem")
    for link in certificate.cert_chain_pems:
        link.write_to_path(workspace / "chain.pem", append=True)
    authority.cert_pem.write_to_path(workspace / "authority.pem")
    return workspace / "authority.pem"
