"""Tokens of Kubernetes, judged by an API server that reviews them."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from fetcher.errors import ConfigurationError
from fetcher.serving import ApiServer, Caller, TokenReview

AUDIENCE = "weightlift-peer"
AGENT = "system:serviceaccount:weightlift:agent"
ANSWERS: dict[str, Any] = {
    "agent's": {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": AGENT}},
    "another user's": {"authenticated": True, "audiences": [AUDIENCE], "user": {"username": "system:serviceaccount:x:y"}},
    "for another audience": {"authenticated": True, "audiences": ["https://kubernetes"], "user": {"username": AGENT}},
    "without audience": {"authenticated": True, "user": {"username": AGENT}},
    "invalid": {"authenticated": False, "error": "expired"},
    "forged": {"authenticated": "yes", "audiences": [AUDIENCE], "user": {"username": AGENT}},
    "nonsense": {"authenticated": True, "audiences": [AUDIENCE], "user": None},
}


@dataclass
class Reviewing:
    """A small API server that reviews the tokens above. `own`: the token that a caller must show. `status`: of its answers."""

    server: ApiServer
    own: str = "mine"
    status: int = 201
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def reviewing(authority: trustme.CA, tmp_path: Path) -> Iterator[Reviewing]:
    (tmp_path / "token").write_text("mine\n")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (review["kind"], review["spec"]["audiences"]) == ("TokenReview", [AUDIENCE])
            state.asked.append(review["spec"]["token"])
            right = self.headers["Authorization"] == f"Bearer {state.own}"
            body = json.dumps({"status": ANSWERS.get(review["spec"]["token"], {})}).encode()
            self.send_response(state.status if right else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Stay silent."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        state = Reviewing(ApiServer("127.0.0.1", server.server_address[1], tmp_path))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("token", ANSWERS)
def test_only_a_token_of_a_named_user_for_this_audience_grants_anything(reviewing: Reviewing, token: str) -> None:
    verdict = TokenReview(reviewing.server, AUDIENCE, [AGENT])(Caller(token), "key")
    assert verdict == {"agent's": "granted", "nonsense": "unavailable"}.get(token, "denied")


def test_a_verdict_is_remembered(reviewing: Reviewing) -> None:
    review = TokenReview(reviewing.server, AUDIENCE, [AGENT])
    assert [review(Caller(token), "key") for token in ("agent's", "invalid") * 3] == ["granted", "denied"] * 3
    assert reviewing.asked == ["agent's", "invalid"]


@pytest.mark.parametrize("token", [None, "x" * 20_000])
def test_what_can_be_no_token_is_denied_without_asking(reviewing: Reviewing, token: str | None) -> None:
    assert TokenReview(reviewing.server, AUDIENCE, [AGENT])(Caller(token), "key") == "denied"
    assert reviewing.asked == []


def test_while_the_api_server_fails_nobody_is_judged_and_nothing_is_remembered(reviewing: Reviewing) -> None:
    review = TokenReview(reviewing.server, AUDIENCE, [AGENT])
    reviewing.status = 500
    assert review(Caller("agent's"), "key") == "unavailable"
    reviewing.status = 201
    assert review(Caller("agent's"), "key") == "granted"


def test_our_own_token_is_read_anew(reviewing: Reviewing) -> None:
    review = TokenReview(reviewing.server, AUDIENCE, [AGENT])
    reviewing.own = "rotated"
    assert review(Caller("agent's"), "key") == "unavailable"
    (reviewing.server.account / "token").write_text("rotated")
    assert review(Caller("agent's"), "key") == "granted"


def test_an_api_server_of_another_authority_is_told_no_token(reviewing: Reviewing) -> None:
    trustme.CA().cert_pem.write_to_path(reviewing.server.account / "ca.crt")
    assert TokenReview(reviewing.server, AUDIENCE, [AGENT])(Caller("agent's"), "key") == "unavailable"
    assert reviewing.asked == []


def test_outside_a_pod_there_is_no_api_server() -> None:
    with pytest.raises(ConfigurationError, match="--auth-secret-file"):
        ApiServer.of_this_pod({})
    found = ApiServer.of_this_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"})
    assert (found.host, found.port) == ("10.0.0.1", 443)
