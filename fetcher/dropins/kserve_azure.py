"""The variables by which KServe says how Azure Blob Storage is reached, as one credential value.

Source: kserve-storage 0.21. A client (AZURE_CLIENT_ID, formerly AZ_CLIENT_ID) wins over the account's key. Without either, it
asks anonymously, and so do we: no identity of the node is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fetcher.artifact import ArtifactRef
from fetcher.dropins.kserve_secret import in_variables, secret_of
from fetcher.sources.azure.access import AzureAccess, access_for
from fetcher.sources.azure.address import parsed
from fetcher.sources.azure.identity import named_credential

_VARIABLES = {
    "account_name": "AZURE_STORAGE_ACCOUNT_NAME", "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
    "tenant_id": "AZURE_TENANT_ID", "client_id": "AZURE_CLIENT_ID", "client_secret": "AZURE_CLIENT_SECRET",
}  # fmt: skip
_FORMER = {f"AZ_{name}": f"AZURE_{name}" for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET")}
"""KServe's former names, which win over Azure's own, as in kserve-storage."""


def variables_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` in Azure's own names, with what the storage Secret sets. Raises ConfigurationError without a value."""
    former = {name: value for given, name in _FORMER.items() if (value := environ.get(given, "").strip())}
    return {**environ, **former, **in_variables(secret_of(environ, "azure"), _VARIABLES)}


def azure_access(source: str, environ: Mapping[str, str]) -> AzureAccess:
    """Return the access to what `source` names: a SAS, a connection string, a client, the account's key, or none.

    Raises ConfigurationError, which shows no value, and UsageError for a malformed address.
    """
    variables = variables_of(environ)
    access = access_for(parsed(ArtifactRef(source)), variables)
    if access.sas is not None or variables.get("AZURE_STORAGE_CONNECTION_STRING", "").strip():
        return access
    credential = named_credential(variables)
    return access if credential is None else replace(access, key=None, credential=credential, given_by="AZURE_CLIENT_ID")
