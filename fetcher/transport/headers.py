"""Extra request headers for one host, from the variable `<hostname>-headers`: a JSON object, as KServe's users set it.

They are usually credentials, so callers send them only to the origin of the address as the user wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from fetcher.errors import ConfigurationError

_OURS = {"Accept-Encoding", "Connection", "Content-Length", "Host", "If-Range", "Range", "Te", "Transfer-Encoding"}
"""Headers that the transport sets for each request."""


def variable_for(url: str) -> str:
    """The name of the variable for the host of `url`."""
    return f"{urlsplit(url).hostname}-headers"


def given_headers(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The extra headers for the host of `url`. Headers that the transport sets are left out.

    Raises ConfigurationError, which shows no value.
    """
    variable = variable_for(url)
    text = environ.get(variable, "").strip()
    if not text:
        return {}
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not all(_is_header(name, value) for name, value in document.items()):
        raise ConfigurationError(f'the variable {variable} is not a JSON object of headers, such as {{"Authorization": "..."}}')
    return {name.title(): value for name, value in document.items() if name.title() not in _OURS}


def _is_header(name: str, value: object) -> bool:
    if not isinstance(value, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        return False
    return re.fullmatch(r"[\t\x20-\x7e]*", value) is not None
