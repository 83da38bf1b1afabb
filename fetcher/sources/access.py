"""Credentials as values: what one source may use to be let in.

A source that gets such a value reads neither environment nor files for credentials. So one process can open many sources for
several tenants. Without a value, a source looks for the credentials of the process, as its users' other tools do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TypeVar

from fetcher.errors import UsageError
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """The base of all credential values. No representation shows a secret: fields with one have `repr=False`."""


@dataclass(frozen=True, slots=True)
class HttpAccess(Access):
    """Request headers for the origin of a Hub or of a web address; without headers, anonymous access.

    `given_by` names where they come from, for messages.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    given_by: str = "the caller"

    @classmethod
    def bearer(cls, token: str, given_by: str = "the caller") -> HttpAccess:
        """The access of a token, such as one of the Hub. Raises UsageError if it contains characters that no token has."""
        if not is_token(token):
            raise UsageError(f"the token (from {given_by}) contains characters that no token has")
        return cls({"Authorization": f"Bearer {token}"}, given_by)


def is_token(text: object) -> bool:
    """Tell whether `text` can be a token in a header."""
    return isinstance(text, str) and text.isascii() and text.isprintable() and " " not in text and text != ""


A = TypeVar("A", bound=Access)


def fitting(access: Access | None, kind: type[A], scheme: str) -> A | None:
    """Return `access` if it is of the `kind` that sources of `scheme` take. Raises UsageError for another kind."""
    if access is None or isinstance(access, kind):
        return access
    raise UsageError(f"{scheme}:// takes credentials of the kind {kind.__name__}, not {type(access).__name__}")
