"""The variables by which KServe says how a registry is reached.

Source: kserve-storage 0.21. Its webhook mounts a configuration of docker and names it in KSERVE_OCI_DOCKER_CONFIG.
KSERVE_OCI_INSECURE_REGISTRY means a registry without TLS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fetcher.sources.oci import OciAccess
from fetcher.sources.oci.address import PLAIN_HTTP, OciAddress
from fetcher.sources.oci.finding import found_access

_CONFIGURATION = "KSERVE_OCI_DOCKER_CONFIG"
_MOUNTED = "/mnt/oci-fetch-auth/config.json"
"""Where KServe's webhook mounts the configuration."""
_INSECURE = "KSERVE_OCI_INSECURE_REGISTRY"


def oci_access(source: str, environ: Mapping[str, str]) -> OciAccess:
    """Return the access to the repository that `source` names. May block. Raises ConfigurationError, UsageError."""
    address = OciAddress.parse(source, None)
    return found_access({_CONFIGURATION: _MOUNTED, **environ}, address.registry, address.repository)


def without_tls(sources: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let the registries of `sources` be asked without TLS, if KServe allows it."""
    if environ.get(_INSECURE, "").strip().lower() not in ("1", "true", "yes"):
        return {}
    registries = [OciAddress.parse(source, None).registry for source in sources]
    return {PLAIN_HTTP: ",".join(filter(None, [environ.get(PLAIN_HTTP, ""), *registries]))} if registries else {}
