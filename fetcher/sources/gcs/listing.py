"""Objects of Google Cloud Storage in its JSON answers. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from fetcher.artifact import Checksum, ChecksumAlgorithm
from fetcher.errors import BadResponse
from fetcher.sources.objects import Page, StoredObject

_CHECKSUMS: tuple[tuple[ChecksumAlgorithm, str, int], ...] = (("crc32c", "crc32c", 4), ("md5", "md5Hash", 16))
"""Our name, Google's, and the length in bytes. Composed objects have no MD5."""
FIELDS = "name,size,md5Hash,crc32c,generation,contentEncoding"
"""Every checksum comes with the list: no file costs a request of its own."""


def page(document: bytes, *, what: str) -> tuple[Page, frozenset[str]]:
    """A page of a listing, and the keys of its objects that are stored compressed. Raises BadResponse."""
    match loaded(document, what=what):
        case {**members}:
            items, token = members.get("items", []), members.get("nextPageToken")
            if isinstance(items, list) and (token is None or isinstance(token, str)):
                objects = tuple(stored(item, what=what) for item in items)
                encoded = frozenset(each.key for each, item in zip(objects, items, strict=True) if is_encoded(item))
                return Page(objects, token or None), encoded
    raise BadResponse(f"the list of {what} is not a list of objects")


def loaded(document: bytes, *, what: str) -> Any:
    """The JSON document. Raises BadResponse."""
    try:
        return json.loads(document)
    except (ValueError, RecursionError):
        raise BadResponse(f"the answer about {what} is not JSON") from None


def stored(item: Any, *, what: str) -> StoredObject:
    """The object that a resource describes. Raises BadResponse.

    The ETag stays empty: it names metadata too, and the generation alone names the content.
    """
    match item:
        case {"name": str(key), "size": str(size), "generation": str(generation)} if (
            key and re.fullmatch(r"[0-9]{1,19}", size) and re.fullmatch(r"[0-9]{1,20}", generation) and _is_text(key)
        ):
            checksums = tuple(
                Checksum(algorithm, value) for algorithm, name, length in _CHECKSUMS if (value := _hex(item.get(name), length))
            )
            return StoredObject(key, int(size), "", generation, checksums=checksums)
    raise BadResponse(f"the answer about {what} describes an object without name, size or generation")


def is_encoded(item: Any) -> bool:
    """Whether the object is stored compressed: Google sends such an object in another size than it lists."""
    return str(item.get("contentEncoding") or "").strip().lower() not in ("", "identity")


def _hex(text: Any, length: int) -> str | None:
    """The value of a checksum in base64 as hex digits; None if it does not have `length` bytes."""
    try:
        value = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None
    return value.hex() if len(value) == length else None


def _is_text(key: str) -> bool:
    """Whether the key can be written in UTF-8: JSON can also spell half of a character."""
    return not any("\ud800" <= each <= "\udfff" for each in key)
