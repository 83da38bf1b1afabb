"""The source of one artifact in a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fetcher.artifact import ByteRange, Listing, RemoteFile
from fetcher.errors import BadResponse, ContentChanged
from fetcher.sources.base import Asking, Body, Packing, Remote, once
from fetcher.sources.oci.address import OciAddress
from fetcher.sources.oci.documents import Manifest, parse
from fetcher.sources.oci.layouts import Layer, Layout, layout_of
from fetcher.sources.oci.registry import Registry
from fetcher.transport.client import Answer
from fetcher.transport.ranges import check_part, check_whole

_DEPTH = 3
"""Indexes within indexes at most: an image of several platforms has one."""


class OciSource(Remote):
    """Files are the layers of an artifact; `packing` says which of them are archives, whose members are the files meant."""

    def __init__(self, address: OciAddress, registry: Registry) -> None:
        self._address = address
        self._registry = registry
        self._layouts: dict[str, Layout] = {}
        self._layers: dict[str, Layer] = {}

    async def aclose(self) -> None:
        await self._registry.aclose()

    async def resolve(self, ask: Asking = once) -> str | None:
        """The digest of the manifest, that for this machine's platform if there are several."""
        reference = self._address.reference
        for _ in range(_DEPTH):
            digest, content = await ask(partial(self._registry.manifest, reference))
            document = parse(content, self._address.name)
            if isinstance(document, Manifest):
                self._layouts[digest] = layout_of(document, self._address.name)
                return digest
            reference = str(document.chosen(self._address.name).digest)
        raise BadResponse(f"{self._address.name} is an index of indexes of indexes")

    async def list(self, revision: str | None, ask: Asking = once) -> Listing:
        layout = await self._layout(revision or "", ask)
        self._layers = {layer.path: layer for layer in layout.layers}
        # Of two layers with one path, the planner refuses the contradiction.
        files = tuple(RemoteFile(each.path, each.blob.size, (each.blob.digest,)) for each in layout.layers)
        return Listing(revision, files, authenticated=self._registry.authenticated)

    async def packing(self, revision: str | None, ask: Asking = once) -> Packing | None:
        layout = await self._layout(revision or "", ask)
        archives = tuple(layer.path for layer in layout.layers if layer.archive)
        return Packing(archives, layout.prefix) if archives else None

    @asynccontextmanager
    async def open(self, file: RemoteFile, byte_range: ByteRange | None) -> AsyncIterator[Body]:
        answer = await self._registry.blob(self._layers[file.path].blob, byte_range, what=file.path)
        try:
            yield answer.body(length=_checked(answer, file, byte_range), what=file.path)
        finally:
            answer.close()

    async def _layout(self, revision: str, ask: Asking) -> Layout:
        """The layout of the manifest with this digest, which `resolve` usually has read."""
        if revision not in self._layouts:
            digest, content = await ask(partial(self._registry.manifest, revision))
            document = parse(content, self._address.name)
            if not isinstance(document, Manifest):
                raise BadResponse(f"{self._address.name} has an index in the place of a manifest")
            self._layouts[digest] = layout_of(document, self._address.name)
        return self._layouts[revision]


def _checked(answer: Answer, file: RemoteFile, byte_range: ByteRange | None) -> int | None:
    if answer.status == 416:
        raise ContentChanged("the blob is shorter than its manifest says", path=file.path)
    if byte_range is not None:
        return check_part(answer.status, answer.headers, wanted=byte_range, size=file.size)
    return check_whole(answer.status, answer.headers, size=file.size) or file.size
