"""The trusted certificate authorities, from the variables that users of curl, requests and the clouds already set."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

from fetcher.errors import ConfigurationError

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
