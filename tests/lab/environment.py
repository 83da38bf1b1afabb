"""The variables of a developer's machine that would change a test: tokens, endpoints, proxies, CAs, settings."""

from __future__ import annotations

import re

_FOREIGN = re.compile(
    r"""(HF|HUGGING_?FACE|HUGGINGFACEHUB|FETCHER|LOADER|AWS|GOOGLE|AZURE|S3|STORAGE|XDG|LLMKUBE|MODEL)_\w+
    | \w+_proxy
    | (SSL_CERT|REQUESTS_CA|CURL_CA)_\w+
    | \w*TOKEN\w*
    | NETRC | CACHE_DIR | COLUMNS | LINES | NO_COLOR | FORCE_COLOR""",
    re.VERBOSE | re.IGNORECASE,
)


def is_foreign(name: str) -> bool:
    """Tell whether the variable `name` must be hidden from tests."""
    return _FOREIGN.fullmatch(name) is not None
