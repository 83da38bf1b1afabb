"""How the API server is reached, and by whom: the values that a request needs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.sources.access import is_token

_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """An API server and who asks it. `tls` is None for plain HTTP, which only `kubectl proxy` and tests serve.

    `token_file` is read again and again, because the kubelet renews the token in it. `server_name` is the name in the server's
    certificate, if it is not that of its address.
    """

    server: str
    tls: ssl.SSLContext | None = field(repr=False)
    namespace: str = "default"
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    server_name: str | None = None

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request. Raises ConfigurationError if the token cannot be read."""
        if self.token_file is None:
            return {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            with open(self.token_file, encoding="ascii") as stream:
                token = stream.read(_LARGEST).strip()
        except OSError as error:
            raise ConfigurationError(f"cannot read the token in {self.token_file}: {error.strerror or error}") from None
        except ValueError:
            token = ""
        if not is_token(token):
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
    access = ApiAccess(server, tls, namespace, token_file=directory / "token")
    access.headers()  # a token that is missing now is a mistake of the manifest; one that is missing later is waited for
    return access
