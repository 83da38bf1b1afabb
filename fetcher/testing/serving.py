"""The origin as a process: serves one directory as a repository, prints its addresses, and ends on SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fetcher.testing.content import Content, FileContent
from fetcher.testing.origin import Origin


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal. Prints one line of JSON after it listens: `endpoint`, `cdn_endpoint`, `repo`, `commit`, `pid`."""
    options = _parser().parse_args(arguments)
    signals = {signal.SIGTERM, signal.SIGINT}
    # Block the signals before the server's thread starts and inherits the mask, so that only `sigwait` receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    origin = Origin(
        port=options.port, cdn_port=options.cdn_port, lfs_threshold=options.lfs_threshold, cdn_host=options.cdn_host
    )
    origin.throttle(total=options.rate, per_connection=options.connection_rate)
    with origin:
        repository = origin.add_repo(options.repo, read_directory(options.directory))
        line = {"endpoint": origin.endpoint, "cdn_endpoint": origin.cdn_endpoint}
        print(json.dumps({**line, "repo": options.repo, "commit": repository.commit, "pid": os.getpid()}), flush=True)
        signal.sigwait(signals)
    return 0


def read_directory(directory: Path) -> dict[str, Content]:
    """Return all files below `directory` except hidden ones, by relative path. Computes digests in parallel."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    names = {path.relative_to(directory).as_posix(): path for path in paths}
    files = {name: FileContent(path) for name, path in names.items() if not f"/{name}".count("/.")}
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda content: content.sha256, files.values()))
    return dict(files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m fetcher.testing", description="Serve a directory as a Hub repository.")
    parser.add_argument("directory", type=Path, help="directory with the repository's files")
    parser.add_argument("--repo", default="demo/checkpoint", help="name of the repository")
    parser.add_argument("--port", type=int, default=0, help="port of the Hub; 0 picks a free one")
    parser.add_argument("--cdn-port", type=int, default=0, help="port of the CDN; 0 picks a free one")
    parser.add_argument("--cdn-host", default="127.0.0.1", help="the host in addresses of the CDN, if it is reached by another")
    parser.add_argument("--lfs-threshold", type=int, default=10 << 20, help="size in bytes from which the CDN serves a file")
    parser.add_argument("--rate", type=float, default=None, help="limit of all connections together, in bytes a second")
    parser.add_argument("--connection-rate", type=float, default=None, help="limit of each connection, in bytes a second")
    return parser
