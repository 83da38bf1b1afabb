"""Translates failures of a request without an answer into `fetcher.errors`.

The messages contain the phrases that operators' classifiers already know. They name only the host: an address may be signed.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from fetcher.errors import (
    BadResponse,
    ConfigurationError,
    FetchError,
    Stalled,
    Unreachable,
    Untrusted,
    out_of_descriptors,
)
from fetcher.transport.http_library import aiohttp
from fetcher.transport.statuses import PROXY_ADVICE, is_temporary
from fetcher.transport.urls import host_of
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class TlsAdvice:
    """What to do if this client does not trust a server, and if a server does not trust this client."""

    authority: str = "name its CA in SSL_CERT_FILE"
    certificate: str = "sources are shown no certificate"


def classified(error: Exception, url: str, advice: TlsAdvice) -> FetchError:
    """Translate `error`, raised by a request to `url`."""
    host = host_of(url)
    if (exhausted := _out_of_descriptors(error, host)) is not None:
        return exhausted
    if (alert := _refused_certificate(error)) is not None:
        return Untrusted(f"{host} wants a certificate that it can verify; {advice.certificate}: {alert}")
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return Untrusted(f"certificate verify failed for {host}; {advice.authority}: {_plain(error)}")
        case aiohttp.ClientConnectorDNSError():
            return Unreachable(f"could not resolve host {host}")
        case aiohttp.ClientHttpProxyError():
            return _refused_by_proxy(error.status, host)
        case aiohttp.ClientProxyConnectionError():
            return Unreachable(f"failed to connect to {host} through the proxy: {_plain(error)}")
        case ValueError():
            return _unwritable(error, host)
    return _broken(error, host)


def _broken(error: Exception, host: str) -> FetchError:
    """Translate a failure of the connection, or of the answer on it."""
    match error:
        case aiohttp.ServerTimeoutError():
            return Stalled(f"connection timed out: {host} did not answer")
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return Unreachable(f"failed to connect to {host}: connection refused")
        case aiohttp.ClientConnectorError():
            return Unreachable(f"failed to connect to {host}: {(error.os_error.strerror or 'connection failed').lower()}")
        case aiohttp.ServerDisconnectedError():
            return Unreachable(f"{host} closed the connection without an answer")
        case aiohttp.ClientResponseError():
            return BadResponse(f"the answer of {host} is not HTTP: {_plain(error)}")
    return Unreachable(f"the connection to {host} broke: {type(error).__name__}")


def _unwritable(error: ValueError, host: str) -> ConfigurationError:
    """Translate a failure to write the request. The library's text is not shown: it may contain a header's value."""
    match error:
        case UnicodeError():
            return ConfigurationError(f"{host} is not a host name: each part between dots must have 1 to 63 characters")
        case aiohttp.InvalidURL():
            return ConfigurationError(f"the address on {host} is malformed; check its host and port")
    return ConfigurationError(f"cannot write the request to {host}: its headers contain characters that HTTP forbids")


def _out_of_descriptors(error: Exception, host: str) -> FetchError | None:
    """The error if this process could open no socket: the cause is neither the server nor the network."""
    doing = f"connect to {host}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        try:
            socket.socket().close()  # the resolver does not report that it could not open one
        except OSError as own:
            return out_of_descriptors(own, doing=doing)
    return out_of_descriptors(error, doing=doing) if isinstance(error, OSError) else None


def _refused_certificate(error: BaseException | None) -> str | None:
    """The server's alert about the certificate of this client; None without one. It may come with the answer only (TLS 1.3)."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or getattr(error, "os_error", None)
    reason = getattr(error, "reason", None) or ""
    _, alert, what = reason.partition("_ALERT_")
    return what.replace("_", " ").lower() if alert and ("CERTIFICATE" in what or what == "UNKNOWN_CA") else None


def _refused_by_proxy(status: int, host: str) -> FetchError:
    """The error for a proxy's `status` in its answer to CONNECT."""
    answered = f"the proxy returned error: {status} for the connection to {host}"
    if status == 407:
        return ConfigurationError(f"{answered}; {PROXY_ADVICE}")
    if status < 400 or is_temporary(status):
        return Unreachable(answered)
    return ConfigurationError(f"{answered}; check HTTPS_PROXY, and add hosts that need no proxy to NO_PROXY")


def _plain(error: Any) -> str:
    text = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or type(error).__name__
    return " ".join(str(text).split())[:160]
