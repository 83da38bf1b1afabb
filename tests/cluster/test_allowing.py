"""What a pool allows to be fetched."""

from __future__ import annotations

import pytest

from cluster.allowing import refuse_source
from fetcher.errors import SourceNotAllowed

ALLOWED = [
    ("hf://org/m", ["hf://"]),
    ("hf://org/m@main", ["hf://org/m/"]),
    ("hf://gpt2@main", ["hf://"]),
    ("https://Models.Example.com:443/a/b", ["https://models.example.com/a/"]),
    ("https://10.0.0.7/a", ["https://10.0.0.7/"]),
    ("http://minio.storage.svc.cluster.local:9000/a", ["http://minio.storage.svc.cluster.local:9000/"]),
    ("https://models.corp.internal/a", ["https://models.corp.internal/"]),
    ("s3://bucket/a/b", ["s3://bucket/"]),
    ("oci://registry.example.com/team/m:v1", ["oci://registry.example.com/team/"]),
]
REFUSED = [
    ("hf://org/m", [], "none of the pool's allowedSources (nothing)"),
    ("hf://organisation/m", ["hf://org/"], "none of"),
    ("s3://bucket-of-others/a", ["s3://bucket/"], "none of"),
    ("https://models.example.com.evil.test/a", ["https://models.example.com/"], "none of"),
    ("https://models.example.com@evil.test/a", ["https://models.example.com/"], "more than one way"),
    ("https://h.test/a/../b", ["https://h.test/a/"], "more than one way"),
    ("https://h.test/a/%2e%2E/b", ["https://h.test/a/"], "more than one way"),
    ("https://h.test/a%2f..%2fb", ["https://h.test/"], "more than one way"),
    ("https://h.test/a//b", ["https://h.test/a/"], "more than one way"),
    ("https://h.test\\evil.test/a", ["https://h.test/"], "more than one way"),
    ("file:///etc", ["file://"], "names what lies on a node"),
    ("pvc://claim/path", ["pvc://claim/"], "names what lies on a node"),
    ("http://127.0.0.1:80/a", ["http://127.0.0.1/"], "this machine"),
    ("http://127.1/a", ["http://127.1/"], "this machine"),
    ("http://2130706433/a", ["http://2130706433/"], "this machine"),
    ("http://0x7f.0.0.1/a", ["http://0x7f.0.0.1/"], "this machine"),
    ("http://999.1.1.1/a", ["http://999.1.1.1/"], "this machine"),
    ("http://[::1]/a", ["http://[::1]/"], "this machine"),
    ("http://[::ffff:127.0.0.1]/a", ["http://[::ffff:127.0.0.1]/"], "this machine"),
    ("http://localhost/a", ["http://localhost/"], "this machine"),
    ("http://169.254.169.254/latest", ["http://169.254.169.254/"], "metadata service"),
    ("http://metadata.google.internal/a", ["http://metadata.google.internal/"], "metadata service"),
    ("http://metadata/a", ["http://metadata/"], "metadata service"),
    ("http://a.localhost/a", ["http://a.localhost/"], "this machine"),
    ("http://[64:ff9b::7f00:1]/a", ["http://[64:ff9b::7f00:1]/"], "this machine"),
    ("http://0.0.0.0/a", ["http://0.0.0.0/"], "this machine"),
]


@pytest.mark.parametrize(("uri", "allowed"), ALLOWED, ids=[each[0] for each in ALLOWED])
def test_a_source_below_a_prefix_is_allowed(uri: str, allowed: list[str]) -> None:
    refuse_source(uri, allowed)


@pytest.mark.parametrize(("uri", "allowed", "sentence"), REFUSED, ids=[each[0] for each in REFUSED])
def test_any_other_source_is_refused(uri: str, allowed: list[str], sentence: str) -> None:
    with pytest.raises(SourceNotAllowed) as caught:
        refuse_source(uri, allowed)
    assert sentence in str(caught.value)


def test_loopback_is_allowed_for_tests_only_and_only_below_a_prefix() -> None:
    refuse_source("http://127.0.0.1:8000/a", ["http://127.0.0.1:8000/"], allow_loopback=True)
    with pytest.raises(SourceNotAllowed):
        refuse_source("http://127.0.0.1:8001/a", ["http://127.0.0.1:8000/"], allow_loopback=True)
    with pytest.raises(SourceNotAllowed):
        refuse_source("http://169.254.169.254/a", ["http://169.254.169.254/"], allow_loopback=True)
