"""Reads what S3 sends: pages of a listing, the checksums of an object in its header fields, the code of an error. Pure."""

from __future__ import annotations

import base64
import re
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from fetcher.artifact import Checksum, ChecksumAlgorithm, Digest
from fetcher.errors import BadResponse
from fetcher.sources.objects import Page, StoredObject

_FULL: tuple[ChecksumAlgorithm, ...] = ("crc64nvme", "crc32c", "crc32")
"""The best first: 64 bits miss less than 32."""


def parse_page(data: bytes, *, where: str) -> Page:
    """Parse an answer to ListObjectsV2 with encoding-type=url. Raises BadResponse."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise BadResponse(f"the listing of {where} defines entities, which no store does")
    try:
        document = ET.fromstring(data)  # noqa: S314  without entities there is nothing to expand
        if _tag(document) != "ListBucketResult":
            raise ValueError(_tag(document))
        encoded = _text(document, "EncodingType") == "url"
        objects = tuple(_object(each, encoded) for each in document if _tag(each) == "Contents")
    except (ET.ParseError, ValueError) as error:
        raise BadResponse(f"the listing of {where} is not one of S3") from error
    if _text(document, "IsTruncated").lower() != "true":
        return Page(objects)
    token = _text(document, "NextContinuationToken")
    if not token:
        raise BadResponse(f"the listing of {where} says that it goes on, and not where")
    return Page(objects, token)


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


def checksum_of(headers: Mapping[str, str], etag: str, size: int, first_part: int | None) -> Checksum | None:
    """The best checksum in the header fields of an answer to HEAD; None if there is none.

    `first_part` is the size in bytes of the first part of an upload in parts, None if unknown. An encrypted object has an ETag
    that is no MD5.
    """
    return next(iter(_checksums(headers, etag, size, first_part)), None)


def is_composite(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the best checksum needs the sizes of the parts."""
    best = checksum_of(headers, etag, 0, None)
    return best is None and (re.fullmatch(r"[0-9a-f]{32}-\d{1,5}", etag) is not None or any(_composites(headers)))


def _checksums(headers: Mapping[str, str], etag: str, size: int, first_part: int | None) -> Iterator[Checksum]:
    for algorithm in _FULL:
        raw = _decoded(headers.get(f"x-amz-checksum-{algorithm}", ""), 8 if algorithm == "crc64nvme" else 4)
        if raw is not None:
            yield Checksum(algorithm, raw.hex())
    for algorithm, raw, count in _composites(headers):
        if parts := _parts(size, first_part, count):
            yield Checksum(algorithm, raw.hex(), parts)
    if headers.get("x-amz-server-side-encryption", "AES256") == "AES256" and not any(
        name.lower().startswith("x-amz-server-side-encryption-customer") for name in headers
    ):
        if re.fullmatch(r"[0-9a-f]{32}", etag):
            yield Checksum("md5", etag)
        elif (match := re.fullmatch(r"([0-9a-f]{32})-(\d{1,5})", etag)) and (parts := _parts(size, first_part, int(match[2]))):
            yield Checksum("md5", match[1], parts)


def _composites(headers: Mapping[str, str]) -> Iterator[tuple[ChecksumAlgorithm, bytes, int]]:
    for algorithm in _FULL:
        text, _, count = headers.get(f"x-amz-checksum-{algorithm}", "").rpartition("-")
        raw = _decoded(text, 4)
        if raw is not None and re.fullmatch(r"\d{1,5}", count):
            yield algorithm, raw, int(count)


def _parts(size: int, first: int | None, count: int) -> tuple[int, ...]:
    """The sizes of `count` parts, all but the last as large as the first; () if that is not the size of the object."""
    if first is None or not first > 0 or not (count - 1) * first < size <= count * first:
        return ()
    return (*([first] * (count - 1)), size - (count - 1) * first)


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
