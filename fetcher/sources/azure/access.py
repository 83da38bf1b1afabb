"""Credentials for Azure Blob Storage: an account's key, a SAS, a credential of azure-identity, or none."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from fetcher.errors import ConfigurationError
from fetcher.sources.access import Access
from fetcher.sources.azure.address import AzureAddress
from fetcher.values import dataclass

_ACCOUNT = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
_KEY = ("AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY")
_SAS = "AZURE_STORAGE_SAS_TOKEN"
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"


@dataclass(frozen=True, slots=True)
class AzureAccess(Access):
    """The first of `sas`, `key` and `credential` (of azure-identity) is used; without any of them, access is anonymous.

    `account` names the account that `key` belongs to. `endpoint` is the address of the account, by default that of the public
    cloud.
    """

    account: str | None = None
    endpoint: str | None = None
    sas: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    credential: Any = field(default=None, repr=False)
    given_by: str = "the caller"

    @classmethod
    def from_connection_string(cls, text: str, given_by: str = "the caller") -> AzureAccess:
        """The access that a connection string gives. Raises ConfigurationError, which does not show it."""
        pairs = (each.partition("=") for each in text.strip().split(";") if each.strip())
        values = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if values.get("usedevelopmentstorage", "").lower() == "true":
            raise ConfigurationError(
                f"{given_by} names the development storage; write its BlobEndpoint, AccountName and AccountKey"
            )
        account, endpoint = values.get("accountname") or None, values.get("blobendpoint") or None
        if account and not endpoint:
            suffix = values.get("endpointsuffix") or "core.windows.net"
            endpoint = f"{values.get('defaultendpointsprotocol') or 'https'}://{account}.blob.{suffix}"
        if not endpoint:
            raise ConfigurationError(f"{given_by} has neither AccountName nor BlobEndpoint; copy the connection string again")
        key, sas = values.get("accountkey") or None, values.get("sharedaccesssignature") or None
        return cls(account, endpoint.rstrip("/"), sas.lstrip("?") if sas else None, key, None, given_by).checked()

    def checked(self) -> AzureAccess:
        """This access. Raises ConfigurationError for a key or a SAS that cannot be one."""
        if self.key is not None:
            try:
                base64.b64decode(self.key, validate=True)
            except (ValueError, binascii.Error):
                raise ConfigurationError(f"the account's key (from {self.given_by}) is not base64; copy it again") from None
        if self.sas is not None and re.fullmatch(r"[!-~]*sig=[!-~]*", self.sas) is None:
            raise ConfigurationError(f"the SAS (from {self.given_by}) has no signature; copy it again, from sv= to sig=")
        return self


def access_for(address: AzureAddress, environ: Mapping[str, str]) -> AzureAccess:
    """The access of the process to what `address` names; without any key or SAS, one that azure-identity may complete.

    In order: the SAS of the address, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, the account's key. A connection
    string without a secret gives the endpoint. What belongs to another account than the address is not used.
    """
    account = next((value for name in _ACCOUNT if (value := environ.get(name, "").strip())), None)
    none = AzureAccess(address.account or account, given_by="the environment")
    if address.sas is not None:
        return replace(none, sas=address.sas, given_by="the address").checked()
    if connection := environ.get(_CONNECTION, "").strip():
        connected = AzureAccess.from_connection_string(connection, _CONNECTION)
        account = account or connected.account
    else:
        connected = None
    if address.account is not None and account is not None and account != address.account:
        return none
    base = connected or replace(none, account=none.account or account)
    if sas := environ.get(_SAS, "").strip().lstrip("?"):
        return replace(base, sas=sas, given_by=_SAS).checked()
    if connected is not None and (connected.sas or connected.key):
        return connected
    for variable in _KEY:
        if key := environ.get(variable, "").strip():
            return replace(base, key=key, given_by=variable).checked()
    return base
