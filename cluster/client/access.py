"""How the API server is reached: as a pod, or by a kubeconfig."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """An API server and who asks it. `tls` is None for plain HTTP, which only `kubectl proxy` and tests serve.

    `token_file` is read again and again, because the kubelet renews the token in it.
    """

    server: str
    tls: ssl.SSLContext | None = field(repr=False)
    namespace: str = "default"
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request. Raises ConfigurationError if the token cannot be read."""
        if self.token_file is None:
            return {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            with open(self.token_file, encoding="ascii") as stream:
                token = stream.read(_LARGEST).strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read the service account's token at {self.token_file}: {error}") from None
        if not token.isprintable() or not token:
            raise ConfigurationError(f"{self.token_file} does not contain a token")
        return {"Authorization": f"Bearer {token}"}


def in_cluster(environ: Mapping[str, str] = os.environ, directory: Path = _POD) -> ApiAccess:
    """Return the access that Kubernetes gives a pod. Raises ConfigurationError outside of one."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ConfigurationError("this is no pod: KUBERNETES_SERVICE_HOST is not set; give --kubeconfig")
    try:
        tls = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        namespace = (directory / "namespace").read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot read the service account at {directory}: {error}; set automountServiceAccountToken: true"
        ) from None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return ApiAccess(server, tls, namespace, token_file=directory / "token")


def of_kubeconfig(path: Path) -> ApiAccess:
    """Return the access of the current context of a kubeconfig: client certificates and tokens, no plugins.

    Raises ConfigurationError.
    """
    import yaml  # late: a pod needs none

    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "context", document["current-context"])
        cluster, user = _named(document, "cluster", context["cluster"]), _named(document, "user", context["user"])
        if unknown := {"exec", "auth-provider"} & user.keys():
            raise ConfigurationError(f"{path} gets its credentials from a plugin ({min(unknown)}), which is not started here")
        server = str(cluster["server"])
        return ApiAccess(
            server.rstrip("/"),
            _tls(cluster, user, path.parent) if server.startswith("https:") else None,
            context.get("namespace", "default"),
            token=user.get("token"),
            token_file=path.parent / user["tokenFile"] if "tokenFile" in user else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot use the kubeconfig {path}: {type(error).__name__}: {error}") from None


def _named(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(each[kind] for each in document[f"{kind}s"] if each["name"] == name)
    return found


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], directory: Path) -> ssl.SSLContext:
    authority = _bytes(cluster, "certificate-authority", directory)
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    certificate, key = (_bytes(user, each, directory) for each in ("client-certificate", "client-key"))
    if certificate and key:
        with tempfile.NamedTemporaryFile() as pair:  # ssl loads pairs from files only
            pair.write(certificate + b"\n" + key)
            pair.flush()
            tls.load_cert_chain(pair.name)
    return tls


def _bytes(document: Mapping[str, Any], name: str, directory: Path) -> bytes | None:
    if data := document.get(f"{name}-data"):
        return base64.b64decode(data)
    return (directory / document[name]).read_bytes() if name in document else None
