"""Signatures by the key of an account ("SharedKey"). Pure. One takes 14 µs, so each request has its own."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit

API = "2021-12-02"
"""The version of the service: the first that spells names which XML cannot hold. The tokens of Entra need 2017-11-09."""
_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date", "if-modified-since",
    "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
"""Headers whose values are signed, in the order of the service."""


def signed(method: str, url: str, headers: Mapping[str, str], *, account: str, key: str) -> dict[str, str]:
    """Return the headers that let a request with `headers` in: its date and its signature. `key` is in base64."""
    dated = {**headers, "x-ms-date": formatdate(usegmt=True)}
    values = {name.lower(): value.strip() for name, value in dated.items()}
    text = "\n".join([method, *(values.get(name, "") for name in _SIGNED), *_own(values), _resource(url, account)])
    digest = hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)
    return {"x-ms-date": dated["x-ms-date"], "Authorization": f"SharedKey {account}:{base64.b64encode(digest).decode()}"}


def _own(values: Mapping[str, str]) -> list[str]:
    """The service's own headers, sorted."""
    return [f"{name}:{values[name]}" for name in sorted(values) if name.startswith("x-ms-")]


def _resource(url: str, account: str) -> str:
    parts = urlsplit(url)
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name.lower(), []).append(value)
    return "\n".join([f"/{account}{parts.path}", *(f"{name}:{','.join(sorted(query[name]))}" for name in sorted(query))])
