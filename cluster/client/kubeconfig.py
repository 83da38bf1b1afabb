"""The access of the current context of a kubeconfig, or of several that complete each other, as kubectl reads them.

Client certificates and tokens are read. Plugins are not started.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.client.access import ApiAccess
from fetcher.errors import ConfigurationError
from fetcher.sources.access import is_token

_NOT_OF_USERS = {
    "exec": "gets its credentials from a plugin, which is not started here; give a kubeconfig with a certificate or a token",
    "auth-provider": "gets its credentials from a plugin, which is not started here; give one with a certificate or a token",
    "as": "acts as another user, which is not supported here; give that user's own kubeconfig",
}
_NOT_OF_CLUSTERS = {
    "proxy-url": "uses a proxy, which is not supported here; give one that reaches the API server itself",
    "insecure-skip-tls-verify": "trusts any server, which is refused here; give certificate-authority",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A named part of a kubeconfig. Relative paths in it begin at `directory`."""

    values: Mapping[str, Any]
    directory: Path
    path: Path

    def data(self, name: str) -> bytes | None:
        """Return what stands at NAME-data, or in the file NAME. Raises ValueError, OSError."""
        if data := self.values.get(f"{name}-data"):
            return base64.b64decode(data, validate=True)
        return (self.directory / self.values[name]).read_bytes() if self.values.get(name) else None

    def refuse(self, reasons: Mapping[str, str]) -> None:
        for name, reason in reasons.items():
            if self.values.get(name):
                raise ConfigurationError(f"{self.path}: {name} {reason}")


def of_kubeconfig(*paths: Path) -> ApiAccess:
    """Return the access of the current context. Of what several files name alike, the first one counts.

    Raises ConfigurationError.
    """
    documents = [(path, _loaded(path)) for path in paths]
    current = next((name for _, each in documents if (name := each.get("current-context"))), None)
    if not current:
        raise ConfigurationError(f"{_all(paths)} has no current context; kubectl config use-context sets one")
    context = _entry(documents, "context", current)
    cluster = _entry(documents, "cluster", context.values.get("cluster"))
    user = _entry(documents, "user", context.values.get("user"))
    user.refuse(_NOT_OF_USERS)
    cluster.refuse(_NOT_OF_CLUSTERS)
    token, token_file = user.values.get("token"), user.values.get("tokenFile")
    if token and not is_token(token):
        raise ConfigurationError(f"{user.path}: the token of the user contains characters that no token has")
    server = str(cluster.values.get("server") or "").rstrip("/")
    return ApiAccess(
        _checked(server, cluster.path),
        _tls(cluster, user) if server.startswith("https:") else None,
        context.values.get("namespace") or "default",
        token=token,
        token_file=user.directory / token_file if token_file else None,
        server_name=cluster.values.get("tls-server-name"),
    )


def _loaded(path: Path) -> Mapping[str, Any]:
    try:
        import yaml  # late: a pod needs none
    except ImportError:
        raise ConfigurationError("reading a kubeconfig needs pyyaml; pip install 'weightlift[cluster]'") from None
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot read the kubeconfig {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # its text may show a line with a token
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigurationError(f"the kubeconfig {path} is no YAML{where}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is no kubeconfig")
    return document


def _entry(documents: Sequence[tuple[Path, Mapping[str, Any]]], kind: str, name: Any) -> _Entry:
    for path, document in documents:
        for each in document.get(f"{kind}s") or ():
            if isinstance(each, dict) and each.get("name") == name and isinstance(each.get(kind), dict):
                return _Entry(each[kind], path.parent, path)
    files = _all([path for path, _ in documents])
    raise ConfigurationError(f"{files} has no {kind} {name!r}; kubectl config view shows what it has")


def _all(paths: Sequence[Path]) -> str:
    return "the kubeconfig " + ":".join(map(str, paths))


def _checked(server: str, path: Path) -> str:
    if not server.startswith(("https://", "http://")) or not server.isprintable() or "@" in server:
        raise ConfigurationError(f"{path}: the server of the cluster is no https:// address")
    return server


def _tls(cluster: _Entry, user: _Entry) -> ssl.SSLContext:
    try:
        authority = cluster.data("certificate-authority")
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        certificate, key = user.data("client-certificate"), user.data("client-key")
        if certificate and key:
            with tempfile.NamedTemporaryFile() as pair:  # ssl loads pairs from files only; the file is its owner's alone
                pair.write(certificate + b"\n" + key)
                pair.flush()
                tls.load_cert_chain(pair.name, password="")  # of an encrypted key: fail instead of asking the terminal
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{user.path}: cannot use the certificates: {_problem(error)}") from None
    return tls


def _problem(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"they are damaged ({type(error).__name__})"
