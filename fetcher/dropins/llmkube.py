"""What LLMKube says to its model-downloader, in variables, as plain values. Nothing here does I/O."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath

from fetcher.artifact import ArtifactRef, Digest, RemoteFile
from fetcher.dropins.renaming import Naming
from fetcher.errors import ConfigurationError, NotFound
from fetcher.sources.addresses import hub_address, scheme_of

_POLICIES = {"ifnotpresent": "if-not-present", "onchange": "on-change"}


@dataclass(frozen=True, slots=True)
class Request:
    """`ref` for `directory`, of which `names` are wanted (paths below it; all files without any) with the digests `expect`."""

    ref: ArtifactRef
    directory: Path
    names: tuple[str, ...]
    expect: Mapping[str, Digest]
    refresh: str | None

    @property
    def naming(self) -> Naming | None:
        """Which published file becomes which of `names`; None when all keep theirs."""
        if not self.names:
            return None
        alone = len(self.names) == 1 and scheme_of(self.ref.uri) != "hf"
        return lambda files: {name: _published(name, files, alone=alone) for name in self.names}


def request_of(environ: Mapping[str, str]) -> Request:
    """Raises ConfigurationError, UsageError, UnsupportedScheme."""
    source = _text(environ, "MODEL_SOURCE")
    if not source:
        raise ConfigurationError("MODEL_SOURCE is not set; it names what to download, such as hf://owner/name")
    if scheme_of(source) == "pvc":
        raise ConfigurationError("MODEL_SOURCE is a pvc:// address: a claim is mounted, not downloaded")
    directory, path = _place(environ)
    names = tuple(line.strip() for line in environ.get("MODEL_FILES", "").splitlines() if line.strip())
    if not names and path:
        names = (path,)
    uri = _of_all_files(source) if len(names) > 1 else source
    return Request(
        # What is selected is part of what a manifest answers; so is a name that is not the published one.
        ArtifactRef(uri, include=tuple(sorted(escape(name) for name in names))),
        directory,
        names,
        _digests(environ, names, path),
        _refresh(environ),
    )


def _place(environ: Mapping[str, str]) -> tuple[Path, str | None]:
    """The directory, and the path below it of the one file that is asked for, if one is."""
    cache, path = _text(environ, "CACHE_DIR"), _text(environ, "MODEL_PATH")
    if not cache and not path:
        raise ConfigurationError("neither CACHE_DIR nor MODEL_PATH is set; they say where the model goes")
    if not path:
        return Path(cache), None
    if cache and PurePosixPath(path).is_relative_to(cache):
        relative = PurePosixPath(path).relative_to(cache).as_posix()
        return Path(cache), None if relative == "." else relative
    return Path(path).parent, Path(path).name


def _of_all_files(source: str) -> str:
    """The repository that an address of one of its files belongs to. Raises ConfigurationError where there is none."""
    address = hub_address(ArtifactRef(source))
    if address is not None and address.path is not None:
        return f"hf://{address.prefix}{address.repository}@{address.revision}"
    if address is None and scheme_of(source) != "file":
        raise ConfigurationError("MODEL_FILES names several files, but MODEL_SOURCE is the address of one")
    return source


def _digests(environ: Mapping[str, str], names: tuple[str, ...], path: str | None) -> dict[str, Digest]:
    text = _text(environ, "MODEL_SHA256")
    if not text:
        return {}
    pinned = path if path in names else names[0] if len(names) == 1 else None
    if pinned is None:
        raise ConfigurationError("MODEL_SHA256 is the digest of one file, but MODEL_PATH does not say of which")
    return {pinned: Digest.parse(text if ":" in text else f"sha256:{text}")}


def _refresh(environ: Mapping[str, str]) -> str | None:
    text = _text(environ, "MODEL_REFRESH_POLICY")
    if text and text.lower() not in _POLICIES:
        raise ConfigurationError(f"MODEL_REFRESH_POLICY is {text!r}; it can be IfNotPresent or OnChange")
    return _POLICIES.get(text.lower())


def _published(name: str, files: tuple[RemoteFile, ...], *, alone: bool) -> str:
    """The path of the file that becomes `name`: the same, else the only one of that last part, else the only one at all.

    Raises NotFound.
    """
    paths = [file.path for file in files]
    if name in paths:
        return name
    alike = [path for path in paths if os.path.basename(path) == os.path.basename(name)]
    found = paths if alone and len(paths) == 1 else alike
    if len(found) != 1:
        what = "no file" if not found else f"{len(found)} files"
        raise NotFound(f"the source has {what} of the name {name}; check MODEL_FILES and MODEL_PATH", path=name)
    return found[0]


def _text(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
