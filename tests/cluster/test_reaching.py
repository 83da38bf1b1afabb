"""Where the connections of a source may lead."""

from __future__ import annotations

import pytest

from cluster.reaching import reach_of
from fetcher.sources.access import Access, HttpAccess
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.gcs.access import GcsAccess
from fetcher.sources.oci.access import OciAccess
from fetcher.sources.s3.access import S3Access

PRIVATE = [
    ("the host of a prefix", "https://models.corp/a", ["https://models.corp/"], ("models.corp", 443), True),
    ("its other port", "https://models.corp/a", ["https://models.corp/"], ("models.corp", 6443), False),
    ("the registry of a prefix", "oci://registry.corp:5000/a", ["oci://registry.corp:5000/"], ("registry.corp", 5000), True),
    ("a host below a prefix of all hosts", "https://models.corp/a", ["https://"], ("models.corp", 443), False),
    ("where another source of the pool leads", "hf://org/m", ["hf://", "https://cdn.corp/"], ("cdn.corp", 443), True),
    ("where nothing of the pool leads", "hf://org/m", ["hf://"], ("cdn.corp", 443), False),
]


@pytest.mark.parametrize(("_name", "uri", "allowed", "place", "may"), PRIVATE, ids=[each[0] for each in PRIVATE])
def test_a_private_address_is_for_hosts_that_a_prefix_names(
    _name: str, uri: str, allowed: list[str], place: tuple[str, int], may: bool
) -> None:
    assert (place in reach_of(uri, Access(), allowed, {}).named) == may


STORES = [
    ("s3://bucket/a", S3Access(), True),
    ("s3://bucket/a", S3Access(endpoint="https://minio.corp"), False),
    ("gs://bucket/a", GcsAccess(), True),
    ("az://account/container/a", AzureAccess(), True),
    ("az://account/container/a", AzureAccess(endpoint="https://account.blob.core.windows.net"), True),
    ("az://account/container/a", AzureAccess(endpoint="https://blobs.corp/account"), False),
    ("hf://org/m", HttpAccess(), False),
    ("https://models.corp/a", HttpAccess(), False),
    ("oci://registry.corp/a", OciAccess(), False),
]


@pytest.mark.parametrize(("uri", "access", "may"), STORES)
def test_a_store_may_have_a_private_address_if_nobody_chose_its_host(uri: str, access: Access, may: bool) -> None:
    """Behind a private endpoint of a cloud, the names of its stores mean private addresses."""
    assert reach_of(uri, access, ["https://"], {}).store == may


@pytest.mark.parametrize("uri", ["hf://org/m", "https://models.corp/a", "oci://registry.corp/a"])
def test_the_hubs_endpoint_may_have_one(uri: str) -> None:
    reach = reach_of(uri, Access(), ["hf://"], {"HF_ENDPOINT": "http://hub.corp:8080/base"})
    assert ("hub.corp", 8080) in reach.named
