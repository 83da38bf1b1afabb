"""Blobs in the answers of Azure. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from fetcher.artifact import Checksum
from fetcher.errors import BadResponse
from fetcher.sources.objects import StoredObject
from fetcher.values import dataclass


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob. `directory`: it stands for a directory of a hierarchical namespace. `why_not`: why its bytes are of no use."""

    stored: StoredObject
    directory: bool = False
    archived: bool = False
    encoding: str = ""


def page(document: bytes, *, what: str) -> tuple[tuple[Blob, ...], str | None]:
    """The blobs of a page, and the marker of the next; None at the end. Raises BadResponse."""
    if b"<!" in document:  # a document type: the service sends none, and entities may grow without bounds
        raise BadResponse(f"the list of {what} contains a document type")
    try:
        root = ET.fromstring(document)  # noqa: S314 - without a document type there are no entities
    except ET.ParseError:
        raise BadResponse(f"the list of {what} is not XML") from None
    if root.tag != "EnumerationResults":
        raise BadResponse(f"the list of {what} is not a list of blobs")
    return tuple(_listed(each, what) for each in root.iterfind("Blobs/Blob")), root.findtext("NextMarker") or None


def headed(key: str, headers: Mapping[str, str], *, version: str | None, what: str) -> Blob:
    """The blob that the headers of an answer to HEAD describe. Raises BadResponse."""
    directory = headers.get("x-ms-meta-hdi_isfolder") == "true" or headers.get("x-ms-resource-type") == "directory"
    size, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
    stored = _stored(key, size, etag, headers.get("Content-MD5", ""), version, what)
    return Blob(stored, directory, headers.get("x-ms-access-tier") == "Archive", headers.get("Content-Encoding", ""))


def _listed(blob: ET.Element, what: str) -> Blob:
    named = blob.find("Name")
    key = (named.text or "") if named is not None else ""
    if named is not None and named.get("Encoded") == "true":
        key = unquote(key)

    def text(name: str) -> str:
        return (blob.findtext(f"Properties/{name}") or "").strip()

    directory = text("ResourceType") == "directory" or blob.findtext("Metadata/hdi_isfolder") == "true"
    stored = _stored(key, text("Content-Length"), text("Etag"), text("Content-MD5"), None, what)
    return Blob(stored, directory, text("AccessTier") == "Archive", text("Content-Encoding"))


def _stored(key: str, size: str, etag: str, md5: str, version: str | None, what: str) -> StoredObject:
    if not key or not etag or re.fullmatch(r"[0-9]{1,19}", size) is None:
        raise BadResponse(f"the answer about {what} describes a blob without name, size or ETag")
    return StoredObject(key, int(size), etag.removeprefix("W/").strip('"'), version, checksums=_md5(md5))


def _md5(text: str) -> tuple[Checksum, ...]:
    """The MD5 that the uploader's client computed; empty for a blob without one, such as most block lists."""
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return ()
    return (Checksum("md5", value.hex()),) if len(value) == 16 else ()
