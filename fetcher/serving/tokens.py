"""Kubernetes says whose token a caller shows: a TokenReview for one audience, remembered for a minute.

The server needs the right to create tokenreviews (the ClusterRole `system:auth-delegator`). It uses the token and the CA that
the kubelet mounts, and reads both anew for each question, since they are rotated.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError
from fetcher.serving.authorization import Caller, Verdict
from fetcher.values import dataclass

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
_TIMEOUT = 5.0
_REMEMBERED = {"granted": 60.0, "denied": 10.0}
"""Seconds. A minute is how long a token that was revoked still counts."""
_MOST = 1024
_LONGEST_TOKEN = 16 * 1024
_LARGEST_ANSWER = 256 * 1024


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The address of the API server, and the directory with our `token` and its `ca.crt`."""

    host: str
    port: int
    account: Path = ACCOUNT

    @classmethod
    def of_this_pod(cls, environ: Mapping[str, str]) -> ApiServer:
        """Raises ConfigurationError outside a pod."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdecimal():
            raise ConfigurationError("--token-review works in a pod only; elsewhere give --auth-secret-file")
        return cls(host, int(port))

    def ask(self, review: Mapping[str, Any]) -> Any:
        """Create a TokenReview and return the answer. Raises OSError, http.client.HTTPException, ValueError."""
        token = (self.account / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=_TIMEOUT, context=context)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", _PATH, json.dumps(review), headers)
            answer = connection.getresponse()
            body = answer.read(_LARGEST_ANSWER)
        finally:
            connection.close()
        if answer.status not in (200, 201):
            raise ValueError(f"the API server answers a TokenReview with {answer.status}")
        return json.loads(body)


class TokenReview:
    """Grants everything to tokens of `users` (`system:serviceaccount:namespace:name`) that are for `audience`."""

    def __init__(self, server: ApiServer, audience: str, users: Collection[str]) -> None:
        self._server = server
        self._audience = audience
        self._users = frozenset(users)
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Verdict, float]] = {}

    def __call__(self, caller: Caller, key: str) -> Verdict:
        token = caller.token
        if token is None or len(token) > _LONGEST_TOKEN:
            return "denied"
        mark, now = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest(), time.monotonic()
        with self._lock:
            verdict, until = self._known.get(mark, ("unavailable", 0.0))
        if now < until:
            return verdict
        try:
            verdict = self._review(token)
        except (OSError, http.client.HTTPException, ValueError):
            return "unavailable"
        with self._lock:
            self._known.pop(mark, None)
            self._known[mark] = verdict, now + _REMEMBERED[verdict]
            while len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
        return verdict

    def _review(self, token: str) -> Verdict:
        """Ask the API server. The audience is compared here too: a server that knows no audiences leaves them out."""
        answer = self._server.ask(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [self._audience]},
            }
        )
        try:
            status = answer["status"]
            good = status.get("authenticated") is True and self._audience in status.get("audiences", ())
            return "granted" if good and status["user"]["username"] in self._users else "denied"
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("the API server's answer is no TokenReview") from error
