"""The result of a command, as lines on stdout."""

from __future__ import annotations

import sys

from fetcher.errors import LocalIOError


def print_result(text: str) -> None:
    """Print a line on stdout. Raises LocalIOError, and BrokenPipeError when the reader has closed stdout."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LocalIOError(f"cannot write the result to stdout: {(error.strerror or str(error)).lower()}") from error
