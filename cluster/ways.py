"""On which way agent and controller reach sources: what sources see of the environment of their process."""

from __future__ import annotations

from collections.abc import Mapping

WAYS = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Proxies and authorities: they say on which way a source is reached, and not as whom. Sources see no other variable."""


def ways(environ: Mapping[str, str], hub_endpoint: str | None) -> Mapping[str, str]:
    """Return what sources see of the environment, and the Hub's address if it is given."""
    shown = {name: value for name, value in environ.items() if name.upper() in WAYS}
    return {**shown, **({"HF_ENDPOINT": hub_endpoint} if hub_endpoint else {})}
