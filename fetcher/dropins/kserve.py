"""Parse the arguments and variables that KServe gives to its storage-initializer into plain values. No I/O.

Source: kserve-storage 0.21. `tests/dropins` compares its behaviour with ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from fetcher.errors import UnsupportedScheme, UsageError
from fetcher.sources.addresses import is_blob_address
from fetcher.values import dataclass

Kind = Literal["nothing", "local", "archive", "file", "repository"]
Store = Literal["s3", "gcs", "azure", "oci"]
MOUNTED = "/mnt/models"
"""Another agent of KServe places the models here: there is nothing to do."""
_WORKING = "hf://, s3://, gs://, oci://, http://, https://, file:// or a path"
_UNBUILT = {"hdfs": "HDFS", "webhdfs": "HDFS", "modelscope": "ModelScope"}
_AZURE_FILES = (".file.core.windows.net", ".file.storage.azure.net")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".taz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass(frozen=True, slots=True)
class Pair:
    """A source as the user wrote it, and its directory."""

    source: str
    directory: Path


@dataclass(frozen=True, slots=True)
class Patterns:
    """Shell patterns that select files by relative path; `*` also matches `/`."""

    allow: tuple[str, ...]
    ignore: tuple[str, ...]

    def admits(self, path: str) -> bool:
        if self.allow and not any(fnmatchcase(path, pattern) for pattern in self.allow):
            return False
        return not any(fnmatchcase(path, pattern) for pattern in self.ignore)


def pairs_of(words: Sequence[str]) -> tuple[Pair, ...]:
    """Parse arguments into pairs of a source and a directory. Raises UsageError."""
    if len(words) < 2 or len(words) % 2:
        raise UsageError("storage-initializer SRC DST [SRC DST ...]: give a directory for every source")
    if not all(word.strip() for word in words):
        raise UsageError("storage-initializer SRC DST [SRC DST ...]: an argument is empty")
    return tuple(Pair(source, Path(directory)) for source, directory in zip(words[::2], words[1::2], strict=True))


def patterns_of(environ: Mapping[str, str]) -> Patterns:
    """Parse `STORAGE_ALLOW_PATTERNS` and `STORAGE_IGNORE_PATTERNS`."""
    return Patterns(_listed(environ.get("STORAGE_ALLOW_PATTERNS", "")), _listed(environ.get("STORAGE_IGNORE_PATTERNS", "")))


def authorities_of(environ: Mapping[str, str]) -> Path | None:
    """Return the CA bundle of the ConfigMap that KServe mounts, or None if the user names another bundle."""
    if not environ.get("CA_BUNDLE_CONFIGMAP_NAME") or environ.get("REQUESTS_CA_BUNDLE"):
        return None
    return Path(environ.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or "/etc/ssl/custom-certs") / "cabundle.crt"


def kind_of(source: str, *, exists: bool) -> Kind:
    """Classify `source`; `exists` tells whether it is an existing path. Raises UnsupportedScheme."""
    if source == MOUNTED or source.startswith(MOUNTED + "/"):
        return "nothing"
    scheme = match[1].lower() if (match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)) else ""
    if exists or scheme in ("", "file"):
        return "local"
    _refuse_unbuilt(source, scheme)
    if scheme in ("hf", "oci", "oci+fetch"):
        return "repository"
    if (store := store_of(source)) is not None:
        return "archive" if is_archive(name_of(source) if store == "azure" else source) else "repository"
    return "archive" if _names_archive(source) else "file"


def store_of(source: str) -> Store | None:
    """Return the kind of store that keeps `source`, or None if it is none of these."""
    scheme = source.partition("://")[0].lower()
    if scheme in ("oci", "oci+fetch"):
        return "oci"
    if scheme == "az" or is_blob_address(source):
        return "azure"
    return "s3" if scheme == "s3" else "gcs" if scheme == "gs" else None


def local_path(source: str) -> Path:
    """Return the path that a `file://` address or a path names."""
    return Path(source[len("file://") :] if source.lower().startswith("file://") else source)


def is_archive(name: str) -> bool:
    """Tell by its name whether a file is to be unpacked."""
    return name.lower().endswith(_ARCHIVES)


def name_of(address: str) -> str:
    """Return the file name for an address: the last part of its path."""
    return unquote(urlsplit(address).path.rpartition("/")[2])


def _names_archive(address: str) -> bool:
    # An address such as /download?file=model.tgz has the file name only in its query.
    name = name_of(address)
    return is_archive(name) or ("." not in name and is_archive(urlsplit(address).query))


def _refuse_unbuilt(source: str, scheme: str) -> None:
    where = _UNBUILT.get(scheme)
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(source)
        except ValueError:
            return  # the engine reports the error
        if (parts.hostname or "").endswith(_AZURE_FILES):
            where = "a file share of Azure"
        elif re.search(r"\.git(/|@|$)", parts.path):
            where = "a git repository"
    elif where is None and scheme != "hf" and store_of(source) is None:
        raise UnsupportedScheme(f"{scheme}:// is not supported; use {_WORKING}")
    if where:
        raise UnsupportedScheme(f"{where} is not supported yet ({scheme}://); use {_WORKING}")


def _listed(text: str) -> tuple[str, ...]:
    """Parse a JSON list or values separated by commas."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = text.split(",")
    values = document if isinstance(document, list) else [document]
    return tuple(value for value in (str(each).strip() for each in values) if value)
