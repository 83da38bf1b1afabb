"""The credentials of S3 as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from fetcher.sources.access import Access
from fetcher.sources.tokens import expires_soon
from fetcher.values import dataclass

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Keys:
    """An access key; `token` belongs to temporary ones. `expires` is Unix time, None if they do not expire."""

    key_id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class S3Access(Access):
    """What one source may use. `keys` None: anonymous access.

    `endpoint` is the address of a store other than Amazon's. `virtual_hosts`: whether the bucket is a part of the host; None
    for the usual choice. `renew` is called on a thread when the keys expire; None if they cannot be renewed. `given_by` names
    where the keys come from, for messages.
    """

    keys: S3Keys | None = None
    region: str | None = None
    endpoint: str | None = None
    virtual_hosts: bool | None = None
    requester_pays: bool = False
    renew: Callable[[], S3Keys | None] | None = field(default=None, repr=False)
    given_by: str = "the caller"

    def stale(self) -> bool:
        """Whether the keys expire within a minute, and can be renewed."""
        return self.renew is not None and self.keys is not None and expires_soon(self.keys.expires)
