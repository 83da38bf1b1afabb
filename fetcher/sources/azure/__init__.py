"""The source for Azure Blob Storage. Shared keys and SAS are ours; `azure-identity` gives tokens, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.artifact import ArtifactRef
from fetcher.sources.azure.access import AzureAccess, access_for
from fetcher.sources.azure.address import parsed
from fetcher.sources.azure.container import AzureContainer
from fetcher.sources.azure.identity import tokens_for
from fetcher.sources.azure.place import place_of
from fetcher.sources.objects import ObjectSource
from fetcher.transport.client import HttpTransport


def open_azure(
    ref: ArtifactRef, transport: HttpTransport, environ: Mapping[str, str], *, access: AzureAccess | None = None
) -> ObjectSource:
    """The source that `az://` or the address of a blob names. Raises UsageError, ConfigurationError. Sends no request."""
    address = parsed(ref)
    found = access_for(address, environ) if access is None else access
    place = place_of(address, found, environ)
    tokens = tokens_for(found, environ, searching=access is None, secure=place.secure)
    container = AzureContainer(address.container, transport, place=place, access=found, tokens=tokens)
    return ObjectSource(container, address.path, version=address.version)
