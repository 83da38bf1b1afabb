"""Times as Kubernetes writes them: RFC 3339, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Return the present time in seconds, as in conditions and Events: a `Time` of Kubernetes."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_precisely() -> str:
    """Return the present time in microseconds, as in Leases: a `MicroTime` of Kubernetes."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
