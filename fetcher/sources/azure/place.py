"""Where the account of an address is."""

from __future__ import annotations

from collections.abc import Mapping

from fetcher.errors import ConfigurationError
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.azure.address import AzureAddress
from fetcher.transport.urls import normal
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """An account and its address."""

    account: str
    service: str

    @property
    def secure(self) -> bool:
        """Whether a token may be sent there."""
        return self.service.startswith("https://")


def place_of(address: AzureAddress, access: AzureAccess, environ: Mapping[str, str]) -> Place:
    """The account that `address` names, or `access`, or the environment. Raises ConfigurationError."""
    named = environ.get("AZURE_STORAGE_ACCOUNT_NAME", "").strip() or environ.get("AZURE_STORAGE_ACCOUNT", "").strip()
    account = address.account or access.account or named
    if address.service is not None:
        return Place(account, address.service)
    if access.endpoint is None and not account:
        raise ConfigurationError("az:// does not name the account; set AZURE_STORAGE_ACCOUNT_NAME")
    try:
        service = normal(access.endpoint or f"https://{account}.blob.core.windows.net").partition("?")[0].rstrip("/")
    except ValueError:
        raise ConfigurationError(f"the endpoint of the account (from {access.given_by}) is not a web address") from None
    return Place(account, service)
