"""The trusted certificate authorities, from the variables that users of curl, requests and the clouds already set; and how a
node shows who it is to its peers."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from fetcher.errors import ConfigurationError
from fetcher.values import dataclass

_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """A context that trusts the system's authorities and those in every bundle that a variable names.

    Raises ConfigurationError.
    """
    context = ssl.create_default_context()
    loaded = set[str]()
    for name in _BUNDLES:
        bundle = environ.get(name, "").strip()
        # Usually all of them name the same file, and reading it takes 0.04 s each time.
        if not bundle or os.path.realpath(bundle) in loaded:
            continue
        loaded.add(os.path.realpath(bundle))
        try:
            if os.path.isdir(bundle):
                context.load_verify_locations(capath=bundle)
            else:
                context.load_verify_locations(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{name} names {bundle}, which cannot be read as a CA bundle: {error}") from error
    return context


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom TLS is spoken, and with whom, in PEM files: the `authorities` of servers, those of `tls_context` if None, and the
    certificates that are shown, none if None."""

    authorities: Path | None = None
    chain: Path | None = None
    key: Path | None = None


NOBODY = Identity()


def context_of(identity: Identity, environ: Mapping[str, str]) -> ssl.SSLContext:
    """The context of an identity. Its authorities are trusted alone. Raises ConfigurationError."""
    context = tls_context(environ) if identity.authorities is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if identity.authorities is not None:
            context.load_verify_locations(cafile=identity.authorities)
        if identity.chain is not None:
            context.load_cert_chain(identity.chain, identity.key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        names = ", ".join(str(each) for each in (identity.authorities, identity.chain, identity.key) if each is not None)
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"cannot use the certificate files {names}: {str(reason).lower().replace('_', ' ')}"
        ) from error
    return context


def _no_password() -> str:
    """A key that has a password fails to load; without this, OpenSSL asks for it on the terminal and waits."""
    return ""
