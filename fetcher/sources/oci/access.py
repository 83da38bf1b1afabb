"""The credentials of a registry as values."""

from __future__ import annotations

from dataclasses import field

from fetcher.sources.access import Access
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class OciAccess(Access):
    """A user with a password, or an identity token that a login left; without both, anonymous access.

    `given_by` names where they come from, for messages.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    given_by: str = "the caller"

    @property
    def anonymous(self) -> bool:
        return not (self.user or self.password or self.identity_token)
