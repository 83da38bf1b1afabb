"""The credential of a ModelCache as a value: from the data of its Secret, by a closed list of keys. Pure.

Nothing of the process is ever used: no environment, no file, no metadata service, no program. So what a value would make a
library do beyond that (an address to ask, a program to start, a file to read) is refused or left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cluster.allowing import refuse_source
from cluster.resources.model import Auth
from cluster.stores import KEYS, store_of
from fetcher.errors import ConfigurationError, UsageError
from fetcher.sources.access import Access, HttpAccess
from fetcher.sources.addresses import is_blob_address, scheme_of
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.azure.identity import named_credential
from fetcher.sources.gcs.access import GcsAccess
from fetcher.sources.gcs.files import credentials_of
from fetcher.sources.oci.access import OciAccess
from fetcher.sources.oci.address import OciAddress
from fetcher.sources.oci.finding import entry_in
from fetcher.sources.s3.access import S3Access, S3Keys

_LARGEST = 64 * 1024
"""Bytes of a value. The largest, a service account's file, has some 2,400."""
_GOOGLE = "https://oauth2.googleapis.com/token"
"""Google's identity service. A file that names another one would have us send a signed statement there."""
_ACCOUNT = ("client_email", "private_key", "private_key_id", "project_id")
_USER = ("client_id", "client_secret", "refresh_token")


def access_of(uri: str, auth: Auth | None, data: Mapping[str, bytes], *, allowed: Iterable[str] = ()) -> Access:
    """Return what a source of `uri` may use: the credential in `data`, that of the Secret that `auth` names, or nothing.

    `allowed` are the pool's prefixes: only below one of them may a Secret name the address of an S3 or Azure store.
    Raises UsageError, UnsupportedScheme, ConfigurationError, SourceNotAllowed; none shows a value.
    """
    store = store_of(uri)
    if auth is None:
        return _ANONYMOUS[store]()
    if auth.secret_key_ref is not None:
        name, key = auth.secret_key_ref.name, auth.secret_key_ref.key
        if store not in ("hf", "https"):
            keys = ", ".join(KEYS[store])
            raise UsageError(f"a token alone is no credential for {scheme_of(uri)}://; use secretRef with the keys {keys}")
        return HttpAccess.bearer(_text(data, key, name), f"key {key} of Secret {name}")
    name = auth.secret_ref.name if auth.secret_ref is not None else ""
    found = {key: _text(data, key, name) for key in KEYS[store] if data.get(key)}
    if not found:
        raise ConfigurationError(f"Secret {name} has none of the keys {', '.join(KEYS[store])}; add those that the store needs")
    return _READ[store](found, f"Secret {name}", uri, tuple(allowed))


def _text(data: Mapping[str, bytes], key: str, name: str) -> str:
    value = data.get(key, b"").strip()
    if not value:
        raise ConfigurationError(f"Secret {name} has no key {key}, or it is empty; add it")
    try:
        text = value.decode() if len(value) <= _LARGEST else ""
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise ConfigurationError(f"key {key} of Secret {name} is not a text of at most {_LARGEST} bytes; write it again")
    return text


def _hub(found: Mapping[str, str], where: str, uri: str, allowed: tuple[str, ...]) -> Access:  # noqa: ARG001 - one signature
    return HttpAccess.bearer(found["HF_TOKEN"], f"key HF_TOKEN of {where}")


def _web(found: Mapping[str, str], where: str, uri: str, allowed: tuple[str, ...]) -> Access:  # noqa: ARG001 - one signature
    if "token" in found:
        return HttpAccess.bearer(found["token"], f"key token of {where}")
    user, password = _both(found, "username", "password", where)
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return HttpAccess({"Authorization": f"Basic {pair}"}, where)


def _s3(found: Mapping[str, str], where: str, uri: str, allowed: tuple[str, ...]) -> Access:  # noqa: ARG001 - one signature
    keys = None
    if "AWS_ACCESS_KEY_ID" in found or "AWS_SECRET_ACCESS_KEY" in found:
        key_id, secret = _both(found, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", where)
        keys = S3Keys(key_id, secret, found.get("AWS_SESSION_TOKEN"))
    endpoint = found.get("AWS_ENDPOINT_URL", "").rstrip("/")
    if endpoint:
        refuse_source(f"{endpoint}/", allowed)
    return S3Access(keys, region=found.get("AWS_REGION"), endpoint=endpoint or None, given_by=where)


def _google(found: Mapping[str, str], where: str, uri: str, allowed: tuple[str, ...]) -> Access:  # noqa: ARG001 - one signature
    payer, text = found.get("GOOGLE_CLOUD_QUOTA_PROJECT"), found.get("GOOGLE_APPLICATION_CREDENTIALS_JSON")
    if text is None:
        return GcsAccess(payer=payer, given_by=where)
    info = _json(text, "GOOGLE_APPLICATION_CREDENTIALS_JSON", where)
    # Other types name programs, files and addresses from which a token comes.
    wanted = {"service_account": _ACCOUNT, "authorized_user": _USER}.get(str(info.get("type")))
    if wanted is None:
        raise ConfigurationError(f"{where} has Google credentials of another type than service_account and authorized_user")
    kept = {name: info[name] for name in wanted if isinstance(info.get(name), str)}
    credentials = credentials_of({**kept, "type": info["type"], "token_uri": _GOOGLE}, where)
    return GcsAccess(credentials=credentials, payer=payer, given_by=where)


def _azure(found: Mapping[str, str], where: str, uri: str, allowed: tuple[str, ...]) -> Access:  # noqa: ARG001 - one signature
    if text := found.get("AZURE_STORAGE_CONNECTION_STRING"):
        access = AzureAccess.from_connection_string(text, where)
        endpoint = f"{access.endpoint}/"
        if not is_blob_address(endpoint) or not urlsplit(endpoint).hostname:
            refuse_source(endpoint, allowed)
        return access
    account = found.get("AZURE_STORAGE_ACCOUNT")
    if sas := found.get("AZURE_STORAGE_SAS_TOKEN"):
        return AzureAccess(account, sas=sas.lstrip("?"), given_by=where).checked()
    if key := found.get("AZURE_STORAGE_KEY"):
        return AzureAccess(account, key=key, given_by=where).checked()
    client = {name: found.get(name, "") for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")}
    if not all(client.values()):  # with fewer, azure-identity would look for an identity of this machine
        raise ConfigurationError(f"{where} has no key, SAS or connection string, and a client needs {', '.join(client)}")
    return AzureAccess(account, credential=named_credential(client), given_by=where)


def _registry(found: Mapping[str, str], where: str, uri: str, allowed: tuple[str, ...]) -> Access:  # noqa: ARG001 - one signature
    if (text := found.get(".dockerconfigjson")) is None:
        user, password = _both(found, "username", "password", where)
        return OciAccess(user, password, given_by=where)
    address, entries = OciAddress.parse(uri, None), _json(text, ".dockerconfigjson", where).get("auths")
    access = entry_in(entries if isinstance(entries, dict) else {}, where, address.registry, address.repository)
    if access is None:
        raise ConfigurationError(f"{where} has no entry for {address.registry}; log in there and write the Secret again")
    return access


def _both(found: Mapping[str, str], first: str, second: str, where: str) -> tuple[str, str]:
    if first not in found or second not in found:
        raise ConfigurationError(f"{where} needs both {first} and {second}; add the one that is missing")
    return found[first], found[second]


def _json(text: str, key: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigurationError(f"key {key} of {where} is no JSON object; write it again")
    return document


_ANONYMOUS: Mapping[str, Callable[[], Access]] = {
    "hf": HttpAccess, "https": HttpAccess, "s3": S3Access, "gs": GcsAccess, "az": AzureAccess, "oci": OciAccess,
}  # fmt: skip
_READ: Mapping[str, Callable[[Mapping[str, str], str, str, tuple[str, ...]], Access]] = {
    "hf": _hub, "https": _web, "s3": _s3, "gs": _google, "az": _azure, "oci": _registry,
}  # fmt: skip
