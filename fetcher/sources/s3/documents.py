"""Reads what S3 sends: pages of a listing, the checksums of an object in its header fields, the code of an error. Pure."""

from __future__ import annotations

import base64
import re
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from fetcher.artifact import Checksum, ChecksumAlgorithm, Digest
from fetcher.errors import BadResponse
from fetcher.sources.objects import Page, StoredObject

_FULL: tuple[ChecksumAlgorithm, ...] = ("crc64nvme", "crc32c", "crc32")
"""The best first: 64 bits miss less than 32."""
_LENGTHS: Mapping[ChecksumAlgorithm, int] = {"crc64nvme": 8, "crc32c": 4, "crc32": 4}
"""Bytes."""
_COUNT = r"[1-9]\d{0,4}"
"""A number of parts: 10,000 at most."""
_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects cannot be read at once. Those of GLACIER_IR can."""


def parse_page(data: bytes, *, where: str) -> Page:
    """Parse an answer to ListObjectsV2 with encoding-type=url. Raises BadResponse."""
    try:
        document = _parsed(data)
        if _tag(document) != "ListBucketResult":
            raise ValueError(_tag(document))
        encoded = _text(document, "EncodingType") == "url"
        objects = tuple(_object(each, encoded) for each in document if _tag(each) == "Contents")
    except ValueError as error:
        raise BadResponse(f"the listing of {where} is not one of S3") from error
    if _text(document, "IsTruncated").lower() != "true":
        return Page(objects)
    token = _text(document, "NextContinuationToken")
    if not token:
        raise BadResponse(f"the listing of {where} says that it goes on, and not where")
    return Page(objects, token)


def _parsed(data: bytes) -> ET.Element:
    """Parse XML. Raises ValueError."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError("entities, which no store defines")
    try:
        return ET.fromstring(data)  # noqa: S314  without entities there is nothing to expand
    except ET.ParseError as error:
        raise ValueError("no XML") from error


def _object(element: ET.Element, encoded: bool) -> StoredObject:
    key, size = _text(element, "Key"), _text(element, "Size")
    if not key or not re.fullmatch(r"\d{1,19}", size):
        raise ValueError("an entry without key or size")
    return StoredObject(unquote_plus(key) if encoded else key, int(size), _text(element, "ETag").strip('"'))


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ET.Element, name: str) -> str:
    return next((each.text or "" for each in element if _tag(each) == name), "")


def digest_of(headers: Mapping[str, str]) -> Digest | None:
    """The SHA-256 of the whole object, if the store publishes it."""
    raw = _decoded(headers.get("x-amz-checksum-sha256", ""), 32)
    whole = headers.get("x-amz-checksum-type", "FULL_OBJECT").upper() == "FULL_OBJECT"
    return Digest("sha256", raw.hex()) if raw is not None and whole else None


def checksum_of(headers: Mapping[str, str], etag: str, parts: Sequence[int]) -> Checksum | None:
    """The best checksum in the header fields of an answer to HEAD; None if there is none.

    `parts` are the sizes in bytes of the parts of the upload, empty if unknown. An encrypted object has an ETag that is no MD5.
    """
    return next((each for each, count in _checksums(headers, etag, tuple(parts)) if count in (0, len(parts))), None)


def parts_needed(headers: Mapping[str, str], etag: str) -> int:
    """The number of parts whose sizes the best checksum needs; 0 if it needs none."""
    return next((count for _, count in _checksums(headers, etag, ())), 0)


def _checksums(headers: Mapping[str, str], etag: str, parts: tuple[int, ...]) -> Iterator[tuple[Checksum, int]]:
    """The checksums, the best first, each with the number of parts that it is made of; 0 for one of the whole object."""
    for algorithm in _FULL:
        raw = _decoded(headers.get(f"x-amz-checksum-{algorithm}", ""), _LENGTHS[algorithm])
        if raw is not None:
            yield Checksum(algorithm, raw.hex()), 0
    for algorithm in _FULL:
        text, _, count = headers.get(f"x-amz-checksum-{algorithm}", "").rpartition("-")
        raw = _decoded(text, _LENGTHS[algorithm])
        if raw is not None and re.fullmatch(_COUNT, count):
            yield Checksum(algorithm, raw.hex(), parts), int(count)
    match = re.fullmatch(rf"([0-9a-f]{{32}})(?:-({_COUNT}))?", etag)
    if match is not None and not _is_encrypted(headers):
        yield Checksum("md5", match[1], parts if match[2] else ()), int(match[2] or 0)


def _is_encrypted(headers: Mapping[str, str]) -> bool:
    """Whether the object is encrypted with keys that are not S3's own."""
    customers = any(name.lower().startswith("x-amz-server-side-encryption-customer") for name in headers)
    return customers or headers.get("x-amz-server-side-encryption", "AES256") != "AES256"


def is_archived(headers: Mapping[str, str]) -> bool:
    """Whether the object, by its answer to HEAD, has to be restored before it can be read."""
    stored = headers.get("x-amz-storage-class", "") in _ARCHIVES or "x-amz-archive-status" in headers
    return stored and 'ongoing-request="false"' not in headers.get("x-amz-restore", "")


def parse_parts(data: bytes) -> tuple[tuple[int, ...], str | None]:
    """The sizes of parts in an answer to GetObjectAttributes, and the marker of the next page; none if it is no such answer."""
    try:
        document = _parsed(data)
    except ValueError:
        return (), None
    inside = next((each for each in document if _tag(each) == "ObjectParts"), ET.Element("none"))
    entries = [each for each in inside if _tag(each) in ("Part", "member")]
    sizes = [_text(each, "Size") for each in sorted(entries, key=lambda each: _text(each, "PartNumber").zfill(5))]
    if not all(re.fullmatch(r"\d{1,19}", size) for size in sizes):
        return (), None
    more = _text(inside, "IsTruncated").lower() == "true"
    return tuple(map(int, sizes)), _text(inside, "NextPartNumberMarker") if more else None


def fitting_parts(parts: Sequence[int], size: int, count: int) -> tuple[int, ...]:
    """The parts, if they can be `count` parts of an object of `size` bytes; else ()."""
    return tuple(parts) if len(parts) == count and min(parts, default=0) > 0 and sum(parts) == size else ()


def even_parts(lengths: Mapping[int, int], size: int, count: int) -> tuple[int, ...]:
    """The parts, if all but the last are as large as the first, as those in `lengths` are (by number, from 1); else ().

    The last one has to be among them: then all before it have the right sum.
    """
    if not {1, count} <= lengths.keys():
        return ()
    first = lengths[1]
    parts = (*([first] * (count - 1)), size - (count - 1) * first)
    return parts if all(parts[number - 1] == length for number, length in lengths.items()) else ()


def _decoded(text: str, length: int) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except NotBase64:
        return None
    return raw if len(raw) == length else None


def error_code(body: bytes) -> str:
    """The code of an error's document, such as `NoSuchKey`; "" if there is none."""
    match = re.search(rb"<Code>([A-Za-z0-9.]{1,64})</Code>", body)
    return match[1].decode() if match else ""


def named_region(body: bytes) -> str:
    """The region that the document of an error names; "" if there is none."""
    match = re.search(rb"<Region>([a-z0-9-]{1,32})</Region>", body)
    return match[1].decode() if match else ""
