"""The stores that KServe's users have, on real servers: what the tests of its variables need of each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.proxy import Proxy
from tests.lab.seaweed import KEY_ID, SECRET, S3Server
from tests.lab.stores import AzureServer, GcsServer


@dataclass(frozen=True, slots=True)
class Store:
    """A new bucket: its address, how to put an object into it, and the variables by which KServe reaches it."""

    address: str
    put: Callable[[str, bytes], object]
    env: Mapping[str, str]

    def publish(self, files: Mapping[str, bytes], *, below: str = "") -> str:
        """Put files and return the address of the prefix that they have in common."""
        for path, content in files.items():
            self.put(f"{below}/{path}" if below else path, content)
        return f"{self.address}/{below}"


def in_s3(server: S3Server, client: Any, bucket: str) -> Store:
    env = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": server.endpoint}
    return Store(f"s3://{bucket}", lambda key, content: client.put_object(Bucket=bucket, Key=key, Body=content), env)


def in_gcs(server: GcsServer, bucket: str) -> Store:
    server.make_bucket(bucket)
    env = {"STORAGE_EMULATOR_HOST": server.endpoint}
    return Store(f"gs://{bucket}", lambda key, content: server.put(bucket, key, content), env)


def in_azure(server: AzureServer, proxy: Proxy, authorities: Path, container: str) -> Store:
    """A container of azurite. KServe accepts only the addresses of Azure's cloud: the proxy leads to the server.

    `authorities` is the directory that KServe mounts for its ConfigMap.
    """
    server.make_container(container)
    env = {
        "AZURE_STORAGE_ACCESS_KEY": server.key, "HTTPS_PROXY": proxy.url,
        "CA_BUNDLE_CONFIGMAP_NAME": "authorities", "CA_BUNDLE_VOLUME_MOUNT_POINT": str(authorities),
    }  # fmt: skip
    return Store(f"https://{server.host}/{container}", lambda key, content: server.put(container, key, content), env)
