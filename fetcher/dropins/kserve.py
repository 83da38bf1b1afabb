"""What KServe says to its storage-initializer, in arguments and variables, as plain values. Nothing here does I/O.

Read of kserve-storage 0.21, whose behaviour `tests/dropins` compares with ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from fetcher.errors import UnsupportedScheme, UsageError

Kind = Literal["nothing", "local", "archive", "file", "repository"]
MOUNTED = "/mnt/models"
"""Where another agent of KServe brings the models: there is nothing to do."""
_WORKING = "hf://, http://, https://, file:// and paths"
_UNBUILT = {
    "s3": "S3", "gs": "Google Cloud Storage", "oci": "an OCI registry", "oci+fetch": "an OCI registry", "hdfs": "HDFS",
    "webhdfs": "HDFS", "modelscope": "ModelScope",
}  # fmt: skip
_AZURE = (".blob.core.windows.net", ".file.core.windows.net", ".blob.storage.azure.net", ".file.storage.azure.net")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".taz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


@dataclass(frozen=True, slots=True)
class Pair:
    """A source as it was written, and the directory it goes to."""

    source: str
    directory: Path


@dataclass(frozen=True, slots=True)
class Patterns:
    """Which files are wanted: shell patterns on the relative path, in which `*` also crosses `/`."""

    allow: tuple[str, ...]
    ignore: tuple[str, ...]

    def admits(self, path: str) -> bool:
        if self.allow and not any(fnmatchcase(path, pattern) for pattern in self.allow):
            return False
        return not any(fnmatchcase(path, pattern) for pattern in self.ignore)


def pairs_of(words: Sequence[str]) -> tuple[Pair, ...]:
    """Raises UsageError."""
    if len(words) < 2 or len(words) % 2:
        raise UsageError("storage-initializer SRC DST [SRC DST ...]: every source needs a directory")
    if not all(word.strip() for word in words):
        raise UsageError("storage-initializer SRC DST [SRC DST ...]: one of them is empty")
    return tuple(Pair(source, Path(directory)) for source, directory in zip(words[::2], words[1::2], strict=True))


def patterns_of(environ: Mapping[str, str]) -> Patterns:
    """`STORAGE_ALLOW_PATTERNS` and `STORAGE_IGNORE_PATTERNS`."""
    return Patterns(_listed(environ.get("STORAGE_ALLOW_PATTERNS", "")), _listed(environ.get("STORAGE_IGNORE_PATTERNS", "")))


def authorities_of(environ: Mapping[str, str]) -> Path | None:
    """The CA bundle of the ConfigMap that KServe mounts, unless the user names another one."""
    if not environ.get("CA_BUNDLE_CONFIGMAP_NAME") or environ.get("REQUESTS_CA_BUNDLE"):
        return None
    return Path(environ.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or "/etc/ssl/custom-certs") / "cabundle.crt"


def kind_of(source: str, *, exists: bool) -> Kind:
    """What `source` names; `exists`: whether it is a path that is there. Raises UnsupportedScheme."""
    if source == MOUNTED or source.startswith(MOUNTED + "/"):
        return "nothing"
    scheme = match[1].lower() if (match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)) else ""
    if exists or scheme in ("", "file"):
        return "local"
    _refuse_unbuilt(source, scheme)
    if scheme == "hf":
        return "repository"
    return "archive" if _names_archive(source) else "file"


def local_path(source: str) -> Path:
    """Of a `file://` address or a path."""
    return Path(source[len("file://") :] if source.lower().startswith("file://") else source)


def is_archive(name: str) -> bool:
    """Whether a file of this name is meant to be unpacked."""
    return name.lower().endswith(_ARCHIVES)


def name_of(address: str) -> str:
    """The name a file of an address gets: the last part of its path."""
    return unquote(urlsplit(address).path.rpartition("/")[2])


def _names_archive(address: str) -> bool:
    # An address such as /download?file=model.tgz says what it serves in its query alone.
    name = name_of(address)
    return is_archive(name) or ("." not in name and is_archive(urlsplit(address).query))


def _refuse_unbuilt(source: str, scheme: str) -> None:
    where = _UNBUILT.get(scheme)
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(source)
        except ValueError:
            return  # the engine says what is wrong with it
        if (parts.hostname or "").endswith(_AZURE):
            where = "Azure Storage"
        elif re.search(r"\.git(/|@|$)", parts.path):
            where = "a git repository"
    elif where is None and scheme != "hf":
        raise UnsupportedScheme(f"{scheme}:// is not known; these work: {_WORKING}")
    if where:
        raise UnsupportedScheme(f"{where} is no source yet ({scheme}://); these work: {_WORKING}")


def _listed(text: str) -> tuple[str, ...]:
    """A JSON list, else values separated by commas."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = text.split(",")
    values = document if isinstance(document, list) else [document]
    return tuple(value for value in (str(each).strip() for each in values) if value)
