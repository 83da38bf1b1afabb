"""Parse the variables that LLMKube gives to its model-downloader into plain values. Only `authorities_in` does I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from glob import escape
from pathlib import Path, PurePosixPath

from fetcher.artifact import ArtifactRef, Digest, RemoteFile
from fetcher.dropins.renaming import Naming
from fetcher.errors import ConfigurationError, NotFound
from fetcher.sources.addresses import hub_address, is_blob_address, scheme_of
from fetcher.values import dataclass

AUTHORITIES = Path("/custom-certs")
"""Where LLMKube mounts the ConfigMap of certificate authorities. Its script trusts the first file there."""
_POLICIES = {"ifnotpresent": "if-not-present", "onchange": "on-change"}


@dataclass(frozen=True, slots=True)
class Request:
    """A download of `ref` to `directory`. `names` are the files to fetch, as paths below it; empty means all files.

    `expect` has the digests of files, by path.
    """

    ref: ArtifactRef
    directory: Path
    names: tuple[str, ...]
    expect: Mapping[str, Digest]
    refresh: str | None

    @property
    def naming(self) -> Naming | None:
        """The published file for each of `names`, or None if no file is renamed."""
        if not self.names:
            return None
        alone = len(self.names) == 1 and scheme_of(self.ref.uri) != "hf"
        return lambda files: {name: _published(name, files, alone=alone) for name in self.names}


def request_of(environ: Mapping[str, str]) -> Request:
    """Parse the variables into a request. Raises ConfigurationError, UsageError, UnsupportedScheme."""
    source = _source(environ)
    if not source:
        raise ConfigurationError("MODEL_SOURCE is not set; set it to the source of the model, such as hf://owner/name")
    if scheme_of(source) == "pvc":
        raise ConfigurationError("MODEL_SOURCE is a pvc:// address, which cannot be downloaded; mount the claim instead")
    directory, path = _place(environ)
    names = tuple(line.strip() for line in environ.get("MODEL_FILES", "").splitlines() if line.strip())
    if not names and path:
        names = (path,)
    uri = _of_all_files(source) if len(names) > 1 else source
    return Request(
        # The selection is part of the cache key, and so are new names of files.
        ArtifactRef(uri, include=tuple(sorted(escape(name) for name in names))),
        directory,
        names,
        _digests(environ, names, path),
        _refresh(environ),
    )


def authorities_in(directory: Path) -> Path | None:
    """Return the file of certificate authorities in `directory`: the first by name that is not hidden; None without one."""
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError:
        return None
    return directory / names[0] if names else None


def _source(environ: Mapping[str, str]) -> str:
    """Return what the variables for S3 name, else MODEL_SOURCE, whose spelling is kept if both agree."""
    source, bucket = _text(environ, "MODEL_SOURCE"), _text(environ, "S3_BUCKET")
    path = _text(environ, "S3_KEY") or _text(environ, "S3_PREFIX")
    if not bucket or (source and (not source.lower().startswith("s3://") or not path)):
        return source
    named = f"s3://{bucket}/{path.lstrip('/')}"
    return source if source.rstrip("/") == named.rstrip("/") else named


def _place(environ: Mapping[str, str]) -> tuple[Path, str | None]:
    """Return the directory, and the path below it of the requested file, or None if all files are requested."""
    cache, path = _text(environ, "CACHE_DIR"), _text(environ, "MODEL_PATH")
    if not cache and not path:
        raise ConfigurationError("neither CACHE_DIR nor MODEL_PATH is set; set one of them to the place of the model")
    if not path:
        return Path(cache), None
    if cache and PurePosixPath(path).is_relative_to(cache):
        relative = PurePosixPath(path).relative_to(cache).as_posix()
        return Path(cache), None if relative == "." else relative
    return Path(path).parent, Path(path).name


def _of_all_files(source: str) -> str:
    """Return the repository of an address of one file. Raises ConfigurationError if the address has no repository."""
    address = hub_address(ArtifactRef(source))
    if address is not None and address.path is not None:
        return f"hf://{address.prefix}{address.repository}@{address.revision}"
    if address is None and scheme_of(source) in ("http", "https") and not is_blob_address(source):
        raise ConfigurationError("MODEL_FILES names several files, but MODEL_SOURCE is the address of one file")
    return source


def _digests(environ: Mapping[str, str], names: tuple[str, ...], path: str | None) -> dict[str, Digest]:
    text = _text(environ, "MODEL_SHA256")
    if not text:
        return {}
    pinned = path if path in names else names[0] if len(names) == 1 else None
    if pinned is None:
        raise ConfigurationError("MODEL_SHA256 is the digest of one file; set MODEL_PATH to that file")
    return {pinned: Digest.parse(text if ":" in text else f"sha256:{text}")}


def _refresh(environ: Mapping[str, str]) -> str | None:
    text = _text(environ, "MODEL_REFRESH_POLICY")
    if text and text.lower() not in _POLICIES:
        raise ConfigurationError(f"MODEL_REFRESH_POLICY is {text!r}; use IfNotPresent or OnChange")
    return _POLICIES.get(text.lower())


def _published(name: str, files: tuple[RemoteFile, ...], *, alone: bool) -> str:
    """Return the published path for `name`: the same path, else the only file of that base name, else the only file.

    Raises NotFound.
    """
    paths = [file.path for file in files]
    if name in paths:
        return name
    alike = [path for path in paths if os.path.basename(path) == os.path.basename(name)]
    candidates = paths if alone and len(paths) == 1 else alike
    if len(candidates) != 1:
        what = "no file" if not candidates else f"{len(candidates)} files"
        raise NotFound(f"the source has {what} named {name}; check MODEL_FILES and MODEL_PATH", path=name)
    return candidates[0]


def _text(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
