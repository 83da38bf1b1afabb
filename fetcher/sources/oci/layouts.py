"""Which files an artifact becomes: what packagers of models mean by their layers. Pure.

::

    CNCF ModelPack       application/vnd.cncf.model.* (older: vnd.cnai.*)  *.raw is a file, *.tar* an archive
    KitOps ModelKit      config application/vnd.kitops.modelkit.config.*   archives; only those of the model
    Docker Model Runner  config application/vnd.docker.ai.model.config.*   files, named by format; *.tar an archive
    container image      config of an image                                archives; the directory models/ of the image
    ORAS                 layers with org.opencontainers.image.title        a file each, or an archive of a directory
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from fetcher.errors import NotFound, Refused
from fetcher.sources.oci.documents import Blob, Manifest, first_of
from fetcher.values import dataclass

IMAGE_PREFIX = "models/"
"""The directory of a modelcar image that holds the model, by KServe's convention."""
TITLE = "org.opencontainers.image.title"
_PATHS = ("org.cncf.model.filepath", "org.cnai.model.filepath")
_MODELPACK = ("application/vnd.cncf.model.", "application/vnd.cnai.model.", "application/vnd.cnai.")
_KITOPS = "application/vnd.kitops.modelkit."
_KITOPS_MODEL = re.compile(r"application/vnd\.kitops\.modelkit\.(model|modelpart)\.")
_DOCKER_MODEL = "application/vnd.docker.ai."
_IMAGES = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_TAR = re.compile(r"[.+]tar(?:[.+](?:gzip|zstd))?$")
_UNPACK = "io.deis.oras.content.unpack"
_DOCKER_SUFFIXES = {"gguf": "gguf", "safetensors": "safetensors", "dduf": "dduf", "mmproj": "mmproj"}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an artifact. With `archive`, its members are files; otherwise it is the file `path`."""

    path: str
    blob: Blob
    archive: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """All layers that hold files, in order.

    With `prefix`, only members of archives below it are files, without it in their paths, and a later layer can replace or
    remove files of earlier ones, as in an image.
    """

    layers: tuple[Layer, ...]
    prefix: str = ""


def layout_of(manifest: Manifest, name: str) -> Layout:
    """Decide what `manifest` becomes. `name` is its address for messages. Raises Refused, NotFound."""
    kinds = (manifest.artifact_type, manifest.config_type)
    if any(kind.startswith(_MODELPACK) for kind in kinds):
        layout = Layout(tuple(_modelpack(manifest.layers, name)))
    elif any(kind.startswith(_KITOPS) for kind in kinds):
        layout = Layout(tuple(_archives(blob for blob in manifest.layers if _KITOPS_MODEL.match(blob.media_type))))
    elif any(kind.startswith(_DOCKER_MODEL) for kind in kinds):
        layout = Layout(tuple(_docker(manifest.layers)))
    elif any(blob.annotations.get(TITLE) for blob in manifest.layers):
        layout = Layout(tuple(_titled(manifest.layers)))
    elif manifest.config_type in _IMAGES:
        layout = Layout(tuple(_archives(manifest.layers)), IMAGE_PREFIX)
    else:
        kind = (manifest.artifact_type or manifest.config_type)[:100]
        raise Refused(f"{name} is of the type {kind!r}, and its layers have no names, so it holds no files; check the address")
    if not layout.layers:
        raise NotFound(f"{name} has no layers with files of a model; check the address")
    return layout


def _modelpack(layers: Sequence[Blob], name: str) -> Iterator[Layer]:
    for number, blob in enumerate(layers):
        path = first_of(blob.annotations, (*_PATHS, TITLE))
        if _TAR.search(blob.media_type):
            yield _archive(number, blob)
        elif path:
            yield Layer(path, blob)
        else:
            raise Refused(f"{name} has a layer of the type {blob.media_type[:80]!r} without a file's name; ask its publisher")


def _archives(layers: Sequence[Blob] | Iterator[Blob]) -> Iterator[Layer]:
    return (_archive(number, blob) for number, blob in enumerate(layers))


def _titled(layers: Sequence[Blob]) -> Iterator[Layer]:
    """ORAS marks the archive of a directory. Any other layer is a file, even if its type says that it is a tar."""
    for number, blob in enumerate(layers):
        if blob.annotations.get(_UNPACK) == "true":
            yield _archive(number, blob)
        elif title := blob.annotations.get(TITLE):
            yield Layer(title, blob)


def _docker(layers: Sequence[Blob]) -> Iterator[Layer]:
    """Files with a name have it in an annotation; others are named by their format, numbered like shards."""
    formats = [_docker_format(blob) for blob in layers]
    seen: dict[str, int] = {}
    for number, (blob, kind) in enumerate(zip(layers, formats, strict=True)):
        path = first_of(blob.annotations, (*_PATHS, TITLE))
        seen[kind] = seen.get(kind, 0) + 1
        if _TAR.search(blob.media_type):
            yield _archive(number, blob)
        else:
            yield Layer(path or _docker_name(kind, seen[kind], formats.count(kind)), blob)


def _docker_format(blob: Blob) -> str:
    """`gguf` of `application/vnd.docker.ai.gguf.v3` and `application/vnd.docker.ai.model.file.v1+gguf`."""
    words = re.split(r"[.+]", blob.media_type.removeprefix(_DOCKER_MODEL))
    return words[-1] if words[0] == "model" else words[0]


def _docker_name(kind: str, number: int, count: int) -> str:
    numbered: Callable[[str], str] = lambda stem: stem if count == 1 else f"{stem}-{number:05}-of-{count:05}"  # noqa: E731
    if kind in _DOCKER_SUFFIXES:
        return f"{numbered('model')}.{_DOCKER_SUFFIXES[kind]}"
    if kind == "license":
        return numbered("LICENSE")
    return "template.jinja" if kind == "chat" else numbered(kind)


def _archive(number: int, blob: Blob) -> Layer:
    return Layer(f"layer-{number:05}-{blob.digest.hex[:12]}.tar", blob, archive=True)
