"""The same files in buckets of two servers: nginx, which ignores signatures, and SeaweedFS, which shares the processors."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import nginx
from benchmarks.publishing import MiB, PublishedFile, Repository
from benchmarks.surroundings import mask
from fetcher.artifact import ChecksumAlgorithm
from fetcher.integrity import crc
from tests.lab.seaweed import KEY_ID, SECRET, seaweed

PLAIN = "plain"
ALGORITHMS: tuple[ChecksumAlgorithm, ...] = ("crc64nvme", "crc32c")
"""Each is also the bucket whose objects have this checksum. The bucket `plain` has none."""
PREFIX = "m"
PRESIGNED = 24 * 3600
"""Seconds for which the addresses of the bare loop are valid."""


@dataclass(frozen=True, slots=True)
class Store:
    """A running server. `addresses`: URL, name and size of each file for a client that signs nothing."""

    endpoint: str
    addresses: tuple[tuple[str, str, int], ...]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables that give every contender the endpoint and the credentials."""
        remote = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": self.endpoint, "REGION": "us-east-1"}
        return {
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "S3_ENDPOINT_URL": self.endpoint,
            "RCLONE_CONFIG": "/dev/null",
            **{f"RCLONE_CONFIG_STORE_{name}": value for name, value in remote.items()},
            **mask(),
        }


def checksum(path: Path, algorithm: ChecksumAlgorithm) -> str:
    """Return the CRC of a file, as S3 writes it."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(4 * MiB):
            value = crc.updated(algorithm, value, piece)
    return base64.b64encode(value.to_bytes(crc.WIDTHS[algorithm])).decode()


_SERVER = """\
    map "$http_x_amz_checksum_mode$http_range:$bucket/$file" $crc64nvme {{ include {workspace}/crc64nvme; }}
    map "$http_x_amz_checksum_mode$http_range:$bucket/$file" $crc32c {{ include {workspace}/crc32c; }}
    server {{
        listen 127.0.0.1:{port};
        location ~ ^/(?<bucket>plain|crc64nvme|crc32c)/?$ {{
            default_type application/xml;
            root {workspace};
            rewrite ^ /listing.xml break;
        }}
        location ~ ^/(?<bucket>plain|crc64nvme|crc32c)/m/(?<file>.+)$ {{
            add_header x-amz-checksum-crc64nvme $crc64nvme;
            add_header x-amz-checksum-crc32c $crc32c;
            alias {directory}/$file;
        }}
    }}
"""
"""A checksum is sent if it is asked for, and not with a part of the object."""


@contextmanager
def by_nginx(repository: Repository, workspace: Path) -> Iterator[Store]:
    """Serve the files as objects `m/NAME` of three buckets until the block ends. An ETag of nginx is no MD5."""
    workspace.mkdir(parents=True)
    for algorithm in ALGORITHMS:
        sums = ((file.name, checksum(repository.directory / file.name, algorithm)) for file in repository.files)
        (workspace / algorithm).write_text("".join(f'"ENABLED:{algorithm}/{name}" "{value}";\n' for name, value in sums))
    (workspace / "listing.xml").write_text(_listing(repository))
    (port,) = nginx.free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    files = tuple((f"{endpoint}/{PLAIN}/{PREFIX}/{file.name}", file.name, file.size) for file in repository.files)
    with nginx.running(workspace, _SERVER.format(workspace=workspace, directory=repository.directory, port=port)):
        yield Store(endpoint, files)


def _listing(repository: Repository) -> str:
    """Return an answer to ListObjectsV2. Without keys to quote, it is also one to ListObjects."""
    entries = "".join(_entry(repository.directory / file.name, file) for file in repository.files)
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    head = f"<Name>bench</Name><Prefix>{PREFIX}/</Prefix><KeyCount>{len(repository.files)}</KeyCount><MaxKeys>1000</MaxKeys>"
    body = f"{head}<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{entries}"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{namespace}">{body}</ListBucketResult>'


def _entry(path: Path, file: PublishedFile) -> str:
    seconds = int(path.stat().st_mtime)
    modified = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    known = f"<Key>{PREFIX}/{file.name}</Key><LastModified>{modified}</LastModified><Size>{file.size}</Size>"
    return (
        f"<Contents>{known}<ETag>&quot;{seconds:x}-{file.size:x}&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
    )


@contextmanager
def by_seaweed(repository: Repository, workspace: Path) -> Iterator[Store]:
    """Serve the same objects by SeaweedFS. The ETags of all buckets are MD5s, so there `plain` is verified as well."""
    workspace.mkdir(parents=True)
    with seaweed(workspace) as server:
        client = _client(server.endpoint)
        for bucket in (PLAIN, *ALGORITHMS):
            client.create_bucket(Bucket=bucket)
            for file in repository.files:
                path = repository.directory / file.name
                name = {"crc64nvme": "ChecksumCRC64NVME", "crc32c": "ChecksumCRC32C"}.get(bucket)
                sums = {name: checksum(path, bucket)} if name else {}  # type: ignore[arg-type]  # one of ALGORITHMS
                with path.open("rb") as body:
                    client.put_object(Bucket=bucket, Key=f"{PREFIX}/{file.name}", Body=body, **sums)
        yield Store(server.endpoint, tuple(_presigned(client, file) for file in repository.files))


def _client(endpoint: str) -> Any:
    import botocore.session
    from botocore.config import Config

    options = Config(
        signature_version="s3v4", request_checksum_calculation="when_required", s3={"addressing_style": "path"}, retries=None
    )
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    return botocore.session.Session().create_client("s3", endpoint_url=endpoint, config=options, **keys)


def _presigned(client: Any, file: PublishedFile) -> tuple[str, str, int]:
    what = {"Bucket": PLAIN, "Key": f"{PREFIX}/{file.name}"}
    return client.generate_presigned_url("get_object", Params=what, ExpiresIn=PRESIGNED), file.name, file.size
