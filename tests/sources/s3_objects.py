"""Objects of S3 in tests: published by Amazon's client, read by our source or by the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from fetcher.artifact import ArtifactRef, RemoteFile
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Asking, Source, once
from fetcher.sources.s3 import S3Access, S3Keys
from fetcher.testing.checkpoint import random_bytes
from tests.lab.front import Front
from tests.lab.seaweed import KEY_ID, SECRET, S3Server

MiB = 1024 * 1024
KEYS = S3Keys(KEY_ID, SECRET)
SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=20.0)
ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>told</Message></Error>'
"""The document of a refusal."""
UNEVEN = [random_bytes("one", 6 * MiB), random_bytes("two", 5 * MiB), random_bytes("three", 7 * MiB), b"four"]
"""The parts of an upload. Each but the last has 5 MiB at least."""


def environment(server: S3Server | Front) -> dict[str, str]:
    """The variables of Amazon's tools for a server."""
    return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": server.endpoint}


def put(client: Any, bucket: str, files: Mapping[str, bytes], **options: Any) -> None:
    for key, content in files.items():
        client.put_object(Bucket=bucket, Key=key, Body=content, **options)


def source_of(uri: str, endpoint: str, *, keys: S3Keys | None = KEYS, revision: str | None = None, **options: Any) -> Source:
    """A source with explicit credentials, in an environment that would give others."""
    poisoned = {"AWS_ACCESS_KEY_ID": "AKIDPOISON", "AWS_SECRET_ACCESS_KEY": "poison", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    access = S3Access(keys, endpoint=endpoint, **options)
    return open_source(ArtifactRef(uri, revision), SETTINGS, poisoned, credentials=access)


def uploaded(client: Any, bucket: str, parts: Sequence[bytes], algorithm: str | None, key: str = "model.bin") -> None:
    """Upload an object in `parts`, with checksums by `algorithm`."""
    chosen = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, **chosen)["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        told = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part, **chosen)
        kept = {name: value for name, value in told.items() if name == "ETag" or (algorithm and name == f"Checksum{algorithm}")}
        done.append({"PartNumber": number, **kept})
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": done})


async def described(source: Source, ask: Asking = once) -> RemoteFile:
    """The only file of the source with its checksums."""
    async with aclosing(source):
        listing = await source.list(await source.resolve(ask), ask)
        (file,) = await source.describe(listing.files, ask)
    return file
