"""The parts of the lab as fixtures. A test can call each factory several times; everything ends with the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme

from fetcher.command.signals import SIGNALS
from tests.lab.cgroups import made_cgroup
from tests.lab.chaos import Chaos, chaos_from
from tests.lab.command import end, started_fetcher
from tests.lab.environment import is_foreign
from tests.lab.faults import FaultFilesystem, fault_filesystem
from tests.lab.filesystems import Kind, SmallFilesystem, mounted_filesystem
from tests.lab.nginx import Behaviour, Nginx, running_nginx
from tests.lab.s3_servers import client_of, moto, rclone
from tests.lab.seaweed import S3Server, seaweed
from tests.lab.stores import AzureServer, GcsServer, azure_server, gcs_server


class MakeFilesystem(Protocol):
    def __call__(self, kind: Kind, *, size: int, inodes: int | None = None, options: str = "") -> SmallFilesystem: ...


class StartNginx(Protocol):
    def __call__(self, directory: Path, behaviour: Behaviour | None = None) -> Nginx: ...


class StartFetcher(Protocol):
    def __call__(
        self, *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]: ...


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hide the developer's tokens, endpoints, proxies and caches from tests. Yield the new, empty HOME."""
    for name in filter(is_foreign, list(os.environ)):
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(autouse=True)
def signals_of_the_session() -> Iterator[None]:
    """Restore signal handlers: a command that runs in this process ignores signals at its end, and later processes must not."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def chaos() -> Chaos:
    """Random choices. A failed test shows their seed."""
    chosen = chaos_from()
    print(f"to repeat these choices: WEIGHTLIFT_CHAOS_SEED={chosen.seed}")
    return chosen


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Iterator[MakeFilesystem]:
    """Create and mount an ext4, xfs, btrfs or tmpfs of `size` bytes."""
    with ExitStack() as stack:
        numbers = count()

        def make(kind: Kind, *, size: int, inodes: int | None = None, options: str = "") -> SmallFilesystem:
            workspace = tmp_path / f"{kind}-{next(numbers)}"
            return stack.enter_context(mounted_filesystem(kind, workspace, size=size, inodes=inodes, options=options))

        yield make


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real server of S3."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_client(s3_server: S3Server) -> Any:
    """Amazon's own client, to publish objects."""
    return client_of(s3_server)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server of S3 and STS that takes every key of an object."""
    with moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server of S3 that ignores conditions."""
    with rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def bucket(s3_client: Any) -> str:
    """A new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """A real server of Google Cloud Storage's interface."""
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """A real server of Azure's interface."""
    with azure_server(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of 64 MiB below the cgroup of this process."""
    limit = str(64 * 1024 * 1024)
    with made_cgroup("memory", v1={"memory.limit_in_bytes": limit}, v2={"memory.max": limit}) as group:
        yield group


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultFilesystem]:
    """A filesystem that fails on demand, initially without faults."""
    with fault_filesystem(tmp_path / "faulty") as filesystem:
        yield filesystem


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """A directory on a filesystem that ignores case and Unicode form of names."""
    with fault_filesystem(tmp_path / "folding", names="fold") as filesystem:
        yield filesystem.path


@pytest.fixture
def preserving(tmp_path: Path) -> Iterator[Path]:
    """Like `folding`, but every name keeps its first spelling."""
    with fault_filesystem(tmp_path / "preserving", names="preserve") as filesystem:
        yield filesystem.path


@pytest.fixture(params=["fold", "preserve"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """`folding` and `preserving` in turn."""
    with fault_filesystem(tmp_path / "destination", names=request.param) as filesystem:
        yield filesystem.path


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The certificate authority of the lab's servers."""
    return trustme.CA()


@pytest.fixture
def authority_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate as a PEM file, for SSL_CERT_FILE and similar variables."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def nginx(tmp_path: Path, authority: trustme.CA) -> Iterator[StartNginx]:
    """Start an nginx that serves a directory over HTTP and HTTPS."""
    with ExitStack() as stack:
        numbers = count()

        def start(directory: Path, behaviour: Behaviour | None = None) -> Nginx:
            workspace = tmp_path / f"nginx-{next(numbers)}"
            return stack.enter_context(running_nginx(directory, workspace, authority=authority, behaviour=behaviour))

        yield start


@pytest.fixture
def start_fetcher() -> Iterator[StartFetcher]:
    """Start `fetcher` without waiting, for tests that stop or kill it."""
    with ExitStack() as stack:

        def start(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.Popen[str]:
            process = started_fetcher(*arguments, env=env, cwd=cwd)
            stack.callback(end, process)
            return process

        yield start
