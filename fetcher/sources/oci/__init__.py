"""`oci://registry/repository:tag`: models in the registries of container images.

The client of the distribution specification is small, so there is no library. Every byte is verified: the manifest by the
digest that names it, each layer by the digest in the manifest. The token of the registry does not follow to the object store
that keeps the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fetcher.artifact import ArtifactRef
from fetcher.sources.oci.access import OciAccess as OciAccess
from fetcher.sources.oci.address import OciAddress
from fetcher.sources.oci.finding import found_access
from fetcher.sources.oci.registry import Registry
from fetcher.sources.oci.source import OciSource
from fetcher.transport.client import HttpTransport


def open_oci(
    ref: ArtifactRef, transport: HttpTransport, environ: Mapping[str, str], access: OciAccess | None, *, pin: str | None = None
) -> OciSource:
    """The source that `ref.uri` names, at the digest `pin` if there is one; without `access`, with the process's credentials.

    Raises UsageError, ConfigurationError.
    """
    address = OciAddress.parse(ref.uri, ref.revision)
    if pin is not None:
        address = replace(address, reference=pin)

    def find() -> OciAccess:
        return found_access(environ, address.registry, address.repository)

    return OciSource(address, Registry(address, address.endpoint(environ), transport, find, access))
