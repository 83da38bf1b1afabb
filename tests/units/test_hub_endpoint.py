"""Redirects and links of a mirror."""

from __future__ import annotations

import pytest

from fetcher.errors import BadResponse
from fetcher.transport.hub_endpoint import HubEndpoint

UPSTREAM = "https://huggingface.co"
PREFIXED = "https://art.example/artifactory/api/huggingfaceml/x"
TREE = "/api/models/org/m/tree/abc"


@pytest.mark.parametrize(
    ("endpoint", "location", "target"),
    [
        ("http://mirror:8080", "https://huggingface.co/api/models/new/m", "http://mirror:8080/api/models/new/m"),
        ("http://mirror:8080", "http://HuggingFace.co/new/m/resolve/main/f?a=b", "http://mirror:8080/new/m/resolve/main/f?a=b"),
        (PREFIXED, "https://huggingface.co/api/models/new/m", f"{PREFIXED}/api/models/new/m"),
        (PREFIXED, "/api/resolve-cache/models/o/m/abc/f?etag=x", f"{PREFIXED}/api/resolve-cache/models/o/m/abc/f?etag=x"),
        (PREFIXED, "/new/m/resolve/main/f", f"{PREFIXED}/new/m/resolve/main/f"),
        (PREFIXED, "/datasets/new/m/resolve/main/f", f"{PREFIXED}/datasets/new/m/resolve/main/f"),
        (PREFIXED, f"{PREFIXED}/new/m/resolve/main/f", f"{PREFIXED}/new/m/resolve/main/f"),
        (PREFIXED, "/artifactory/api/huggingfaceml/x/new/m/resolve/main/f", f"{PREFIXED}/new/m/resolve/main/f"),
        (PREFIXED, "https://art.example:443/new/m/resolve/main/f", f"{PREFIXED}/new/m/resolve/main/f"),
        (PREFIXED, "http://art.example/new/m/resolve/main/f", f"{PREFIXED}/new/m/resolve/main/f"),
        (PREFIXED, "/artifactory/blobs/abc", "https://art.example/artifactory/blobs/abc"),
        ("https://mirror:8443", "http://mirror:9000/blob/abc", "http://mirror:9000/blob/abc"),
        ("https://mirror:8443", "http://mirror:9000/o/m/resolve/main/f", "http://mirror:9000/o/m/resolve/main/f"),
        ("https://mirror", "http://mirror/blob/abc", "http://mirror/blob/abc"),
        (PREFIXED, "https://cdn.example/f?Signature=s", "https://cdn.example/f?Signature=s"),
        (PREFIXED, "https://huggingface.co.evil.example/f", "https://huggingface.co.evil.example/f"),
        (
            "https://huggingface.co",
            "https://huggingface.co/new/m/resolve/main/f",
            "https://huggingface.co/new/m/resolve/main/f",
        ),
    ],
)
def test_addresses_of_the_hub_are_requested_at_the_mirror(endpoint: str, location: str, target: str) -> None:
    assert HubEndpoint(endpoint, UPSTREAM).onward(f"{endpoint}/org/m/resolve/main/f", location) == target


def test_a_redirect_of_a_mirror_to_its_upstream_is_followed() -> None:
    address = "https://huggingface.co/org/m/resolve/main/f"
    assert HubEndpoint("http://mirror", UPSTREAM).onward("http://mirror/org/m/resolve/main/f", address) == address


@pytest.mark.parametrize(
    "link",
    [
        f"{PREFIXED}{TREE}?cursor=2",
        f"https://huggingface.co{TREE}?cursor=2",
        f"http://upstream.internal:8080{TREE}?cursor=2",
        f"http://art.example/artifactory/api/huggingfaceml/x{TREE}?cursor=2",
        f"{TREE}?cursor=2",
        "/api/models/org%2Fm/tree/abc?cursor=2",
        "?cursor=2",
    ],
)
def test_the_next_page_of_a_listing_is_at_the_mirror(link: str) -> None:
    assert HubEndpoint(PREFIXED, UPSTREAM).next_page(f"{PREFIXED}{TREE}?recursive=true", link) == f"{PREFIXED}{TREE}?cursor=2"


@pytest.mark.parametrize(
    "link", ["https://huggingface.co/api/models/other/m/tree/abc", "http://elsewhere/x", "/other?cursor=2"]
)
def test_a_link_to_another_listing_is_refused(link: str) -> None:
    with pytest.raises(BadResponse, match="outside this listing"):
        HubEndpoint(PREFIXED, UPSTREAM).next_page(f"{PREFIXED}{TREE}", link)
