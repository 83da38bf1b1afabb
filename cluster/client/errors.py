"""What the API server refuses, by what its caller does next: a branch of the tree in `fetcher.errors`.

::

    FetchError
    └── ApiError                 77  the API server refuses the request (400, 405, 415, ...)
        ├── Missing              66  the object, its namespace or its kind does not exist
        ├── Conflict             75  somebody else was faster, or owns the field
        ├── Forbidden            77  the token or RBAC does not allow it
        ├── Invalid              65  the object breaks its schema or a rule
        ├── Gone                 75  the resource version is too old
        ├── Unavailable          69  no connection, no answer in time, 429 or 5xx
        │   └── TooLarge         69  the answer is larger than what is read into memory
        └── NotLeading           75  another process leads, so this one writes nothing
"""

from __future__ import annotations

from typing import ClassVar

from fetcher.errors import FetchError


class ApiError(FetchError):
    """The API server refused a request. `code` is the HTTP status, 0 without an answer."""

    reason = "ApiError"
    exit_code = 77

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Missing(ApiError):
    """The object, its namespace or its kind does not exist."""

    reason: ClassVar[str] = "NotFound"
    exit_code = 66


class Conflict(ApiError):
    """Somebody else changed or created the object first, or another field manager owns the field. Read it again."""

    reason = "Conflict"
    exit_code = 75
    retryable = True


class Forbidden(ApiError):
    """RBAC, or an admission policy, does not allow the request. `401` counts too: the token is not accepted."""

    reason = "Forbidden"
    exit_code = 77


class Invalid(ApiError):
    """The object breaks its schema or a rule."""

    reason = "Invalid"
    exit_code = 65


class Gone(ApiError):
    """The resource version is too old: list anew."""

    reason = "Expired"
    exit_code = 75
    retryable = True


class Unavailable(ApiError):
    """No connection, no answer in time, 429 or 5xx: try again, after `retry_after` seconds if the server says so."""

    reason = "Unavailable"
    exit_code = 69
    retryable = True

    def __init__(self, message: str, *, code: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class TooLarge(Unavailable):
    """The answer is larger than what is read into memory."""


class NotLeading(ApiError):
    """This process is not the leader, so it must not write."""

    reason = "NotLeading"
    exit_code = 75
    retryable = True


_CLASSES: dict[int, type[ApiError]] = {401: Forbidden, 403: Forbidden, 404: Missing, 409: Conflict, 410: Gone, 422: Invalid}
_LONGEST = 500
"""Characters of a server's message that are kept: it may repeat the whole object."""


def refusal(code: int, what: str, message: str, *, retry_after: float | None = None) -> ApiError:
    """Return the error for the status `code` of the request `what`."""
    # What the server repeats of an object is others' text, and a terminal would obey its control characters.
    message = " ".join("".join(each if each.isprintable() else " " for each in message).split())
    text = f"{what}: {message[:_LONGEST] or f'HTTP {code}'}"
    if code == 429 or code >= 500:
        return Unavailable(text, code=code, retry_after=retry_after)
    return _CLASSES.get(code, ApiError)(text, code=code)
