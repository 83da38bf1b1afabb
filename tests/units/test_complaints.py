"""The error message of a server is shown short, printable, and without secrets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.transport.complaints import LONGEST, complaint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("headers", "body", "message"),
    [
        ({}, b"", ""),
        ({"X-Error-Code": "RepoNotFound"}, b"", "RepoNotFound"),
        (
            {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"},
            b"",
            "RepoNotFound: Repository not found",
        ),
        ({"X-Error-Message": "the header wins"}, b'{"error": "the body"}', "the header wins"),
        ({}, b'{"error": {"code": 7, "message": "deep"}}', "deep"),
        ({}, b'{"detail": [{"msg": "a list"}]}', "a list"),
        ({"Content-Type": "application/json"}, b'"a bare string"', "a bare string"),
        ({"Content-Type": "text/plain; charset=utf-8"}, "schlie\u00dft um 5".encode(), "schlie\u00dft um 5"),
        ({"Content-Type": "text/html"}, b"<html><body>Login</body></html>", ""),
        ({"Content-Type": "application/octet-stream"}, b"weights", ""),
        ({}, b"\x1f\x8b\x08\xff\xfe", ""),
        ({}, b"{broken json", ""),
        ({}, b"[" * 5000, ""),
        ({}, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", "AccessDenied Access Denied"),
        ({}, b"two\nlines\x1b[31m and \x07 bells", "two lines [31m and bells"),
        ({}, b"no such commit " + COMMIT.encode(), f"no such commit {COMMIT}"),
    ],
)
def test_the_message_of_the_server_is_found(headers: dict[str, str], body: bytes, message: str) -> None:
    assert complaint(headers, body) == message


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("token hf_AbCdEfGhIjKlMn is expired", "hf_AbCdEfGhIjKlMn"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("see https://user:pw@host/x?X-Amz-Signature=abc&Expires=5", "abc"),
        ("see https://user:pw@host/x?X-Amz-Signature=abc&Expires=5", "pw"),
        ("bad Signature=abcdef1234 given", "abcdef1234"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.e30.abc", "eyJhbGciOiJIUzI1NiJ9"),
        ("key " + "aB3" * 20, "aB3" * 20),
        ("what you sent was s3cret", "s3cret"),
    ],
)
def test_no_secret_is_repeated(text: str, secret: str) -> None:
    for headers, body in [({"X-Error-Message": text}, b""), ({}, json.dumps({"error": text}).encode()), ({}, text.encode())]:
        assert secret not in complaint(headers, body, secrets=["s3cret", ""])


@given(st.binary(max_size=400), st.text(max_size=400), st.text(max_size=20))
def test_any_response_becomes_one_short_printable_line(body: bytes, message: str, kind: str) -> None:
    for headers in ({"Content-Type": kind}, {"X-Error-Message": message}):
        line = complaint(headers, body)
        assert len(line) <= LONGEST
        assert line.isprintable()
        assert '"' not in line
