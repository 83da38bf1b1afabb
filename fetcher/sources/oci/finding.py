"""Finds the credentials of a registry where docker, podman and skopeo keep them: in configurations and credential helpers.

The first configuration that knows the registry decides. In one configuration the order is docker's: a helper for the registry,
the entry of the registry, the helper for all registries.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fetcher.errors import ConfigurationError
from fetcher.sources.oci.access import OciAccess
from fetcher.sources.oci.address import DOCKER_HUB

HELPER_TIMEOUT = 30.0
"""Seconds for a credential helper at most. Those of clouds ask a server, which takes one or two."""
_LARGEST = 1024 * 1024
"""Bytes of a configuration at most: an entry has some hundreds."""
_OF_DOCKER_HUB = ("https://index.docker.io/v1/", "index.docker.io", DOCKER_HUB)
_TOKEN_USER = "<token>"  # noqa: S105 - the name by which a helper says that its secret is an identity token
_NOT_FOUND = "credentials not found"


def found_access(environ: Mapping[str, str], registry: str, repository: str) -> OciAccess:
    """Return the credentials for `repository` of `registry`, or anonymous access. May block. Raises ConfigurationError."""
    for path in _configurations(environ):
        document = _read(path)
        if document is not None and (access := _from_configuration(document, path, registry, repository, environ)) is not None:
            return access
    return OciAccess()


def _configurations(environ: Mapping[str, str]) -> Iterator[Path]:
    """The paths of configurations, the most specific first."""
    if given := environ.get("KSERVE_OCI_DOCKER_CONFIG"):  # KServe mounts it for the one source of this container
        yield Path(given) / "config.json" if Path(given).is_dir() else Path(given)
    if directory := environ.get("DOCKER_CONFIG"):
        yield Path(directory) / "config.json"
    if file := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(file)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    if (home := environ.get("HOME")) and not environ.get("DOCKER_CONFIG"):
        yield Path(home) / ".docker" / "config.json"


def _read(path: Path) -> dict[str, Any] | None:
    """The configuration; None if there is none, or if it belongs to another user."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        document = json.loads(text) if len(text) <= _LARGEST else None
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not a configuration of docker; write it again with docker login")
    return document


def _from_configuration(
    document: Mapping[str, Any], path: Path, registry: str, repository: str, environ: Mapping[str, str]
) -> OciAccess | None:
    names = _names(registry, repository)
    helpers, entries = _mapping(document.get("credHelpers")), _mapping(document.get("auths"))
    for name in names:
        if isinstance(helper := helpers.get(name), str):
            return _from_helper(helper, name, environ)
    if (access := entry_in(entries, str(path), registry, repository)) is not None:
        return access
    store = document.get("credsStore")
    # A helper knows registries, not repositories; Docker Hub by its old address.
    known = names[0] if names[0] == _OF_DOCKER_HUB[0] else registry
    return _from_helper(store, known, environ) if isinstance(store, str) and store else None


def entry_in(entries: Mapping[str, Any], where: str, registry: str, repository: str) -> OciAccess | None:
    """Return the credentials that the `auths` of a configuration have for `repository`. Starts no helper.

    Raises ConfigurationError, which names `where` the configuration is and shows no value.
    """
    for name in _names(registry, repository):
        if (access := _from_entry(_mapping(entries.get(name)), where)) is not None:
            return access
    return None


def _names(registry: str, repository: str) -> list[str]:
    """The names of an entry for `repository`: podman also has entries for repositories, docker keeps old web addresses."""
    if registry in (*_OF_DOCKER_HUB, "registry-1.docker.io"):
        return list(_OF_DOCKER_HUB)
    parts = repository.split("/")
    narrower = ["/".join((registry, *parts[:count])) for count in range(len(parts), 0, -1)]
    return [*narrower, registry, f"https://{registry}", f"https://{registry}/", f"https://{registry}/v1/", f"http://{registry}"]


def _from_entry(entry: Mapping[str, Any], where: str) -> OciAccess | None:
    user, password = (text if isinstance(text := entry.get(name), str) else "" for name in ("username", "password"))
    if isinstance(encoded := entry.get("auth"), str) and encoded:
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigurationError(f"{where} has an entry whose auth is not base64; log in again") from None
    token = entry.get("identitytoken")
    access = OciAccess(user, password, token if isinstance(token, str) else "", given_by=where)
    return None if access.anonymous else access


def _from_helper(helper: str, name: str, environ: Mapping[str, str]) -> OciAccess | None:
    """Ask a credential helper, a program that reads a registry's name and writes JSON."""
    program = f"docker-credential-{helper}"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", helper):
        raise ConfigurationError("the configuration of docker names a credential helper that is not a name; correct it")
    found = shutil.which(program, path=environ.get("PATH", os.defpath))
    if found is None:
        raise ConfigurationError(f"the credential helper {program} is not on PATH; install it, or log in without it")
    try:
        done = subprocess.run(  # noqa: S603 - the user's configuration names it
            [found, "get"], input=name.encode(), capture_output=True, timeout=HELPER_TIMEOUT, env=dict(environ), check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"the credential helper {program} did not answer within {HELPER_TIMEOUT:.0f} s; run it by hand, or log in "
            "without it"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"the credential helper {program} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout.decode("utf-8", "replace").lower():
            return None
        raise ConfigurationError(f"the credential helper {program} failed with status {done.returncode}; run it by hand")
    return _answered(done.stdout, program)


def _answered(output: bytes, program: str) -> OciAccess:
    try:
        match json.loads(output):
            case {"Username": str(user), "Secret": str(secret)}:
                if user == _TOKEN_USER:
                    return OciAccess(identity_token=secret, given_by=program)
                return OciAccess(user, secret, given_by=program)
    except ValueError:
        pass
    raise ConfigurationError(f"the credential helper {program} wrote no user and secret; run it by hand")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
