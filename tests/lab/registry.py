"""Debian's docker-registry, a real server of the distribution specification, and a client that pushes to it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.availability import program
from tests.lab.servers import free_port, listens, serving

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
Descriptor = dict[str, Any]
USER, PASSWORD = "puller", "s3cret-of-the-pull"
_HTPASSWD = f"{USER}:$2b$04$acnZLkYoT90DgK4KsilyP.JqRhmmNIXXi7NGplK.1a8Ct2PaEuedO\n"
"""USER with the bcrypt of PASSWORD, the only hash that the registry takes; Python has none."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry. `password`: that of USER, who alone may use it; None if everybody may."""

    host: str
    port: int
    password: str | None = None

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"

    def push_blob(self, repository: str, content: bytes, kind: str, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """Push a blob and return its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        status, headers = self._ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, status
        upload = headers["Location"].partition(f"//{self.place}")[2] or headers["Location"]
        kinds = {"Content-Type": "application/octet-stream"}
        status, _ = self._ask("PUT", f"{upload}{'&' if '?' in upload else '?'}digest={digest}", content, kinds)
        assert status == 201, status
        return {"mediaType": kind, "digest": digest, "size": len(content), "annotations": dict(annotations or {})}

    def push_manifest(self, repository: str, tag: str, document: Mapping[str, Any], kind: str = MANIFEST) -> Descriptor:
        """Push a manifest or an index and return its descriptor."""
        content = json.dumps(document).encode()
        status, headers = self._ask("PUT", f"/v2/{repository}/manifests/{tag}", content, {"Content-Type": kind})
        assert status == 201, status
        return {"mediaType": kind, "digest": headers["Docker-Content-Digest"], "size": len(content)}

    def push(
        self,
        repository: str,
        tag: str,
        layers: Sequence[tuple[bytes, str, Mapping[str, str]]],
        *,
        config: str = EMPTY_CONFIG,
        artifact_type: str | None = None,
    ) -> Descriptor:
        """Push an artifact of `layers` (content, media type, annotations) and return the descriptor of its manifest."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.push_blob(repository, b"{}", config),
            "layers": [self.push_blob(repository, *layer) for layer in layers],
        }
        if artifact_type:
            document["artifactType"] = artifact_type
        return self.push_manifest(repository, tag, document)

    def _ask(
        self, method: str, target: str, content: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str]]:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=30)) as connection:
            connection.request(method, target, content, {**self._login(), **(headers or {})})
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.getheaders())

    def _login(self) -> dict[str, str]:
        if self.password is None:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(f'{USER}:{self.password}'.encode()).decode()}"}


@contextmanager
def registry(workspace: Path, *, private: bool = False) -> Iterator[Registry]:
    """Start an empty registry, and end it with the block. A `private` one lets only USER with PASSWORD in."""
    found, port = program("docker-registry", package="docker-registry"), free_port()
    workspace.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(workspace / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if private:
        (workspace / "htpasswd").write_text(_HTPASSWD)
        settings["auth"] = {"htpasswd": {"realm": "models", "path": str(workspace / "htpasswd")}}
    (workspace / "registry.yml").write_text(json.dumps(settings))  # JSON is YAML
    with serving((found, "serve", workspace / "registry.yml"), workspace / "log", ready=lambda: listens(port)):
        yield Registry("127.0.0.1", port, PASSWORD if private else None)
