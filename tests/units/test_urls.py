"""Web addresses have one spelling on the wire. Legal characters, especially of a signature, stay as written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.artifact import redact
from fetcher.errors import BadResponse
from fetcher.transport.client import is_downgrade
from fetcher.transport.urls import address_from, basic_authorization, normal, origin_of

SIGNED = "https://cdn.example/a%2Fb/c+d?X-Amz-Signature=ab%2Bcd/ef==&name=a+b%20c&~x='(1)*!;,:@$"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (SIGNED, SIGNED),
        ("https://a.example/my model.bin", "https://a.example/my%20model.bin"),
        ("https://a.example/my%20model v2.bin", "https://a.example/my%20model%20v2.bin"),
        ("https://a.example/modèle.bin", "https://a.example/mod%C3%A8le.bin"),
        ("https://a.example/mod\udce8le.bin", "https://a.example/mod%E8le.bin"),
        ("https://a.example/模型.bin?名=值", "https://a.example/%E6%A8%A1%E5%9E%8B.bin?%E5%90%8D=%E5%80%BC"),
        ("https://a.example/a[1]|b\\c^`{}", "https://a.example/a%5B1%5D%7Cb%5Cc%5E%60%7B%7D"),
        ("https://a.example/100%.bin", "https://a.example/100%25.bin"),
        ("https://a.example/a%zz%4", "https://a.example/a%25zz%254"),
        ("https://a.example/f?q=a b|c[0]%", "https://a.example/f?q=a%20b%7Cc%5B0%5D%25"),
        ("HTTPS://A.Example:8443/F", "https://a.example:8443/F"),
        ("http://a.example", "http://a.example/"),
        ("https://bücher.example/f", "https://xn--bcher-kva.example/f"),
        ("https://[FD00::1]:8443/f", "https://[fd00::1]:8443/f"),
        ("https://user:pw@a.example/f", "https://a.example/f"),
        ("https://a.example/f#sha256=ab", "https://a.example/f"),
    ],
)
def test_only_illegal_characters_are_quoted(written: str, sent: str) -> None:
    assert normal(written) == sent


@given(st.text(max_size=40), st.text(max_size=40))
def test_quoting_is_done_once(path: str, query: str) -> None:
    once = normal(f"https://a.example/{path}?{query}")
    assert once.isascii()
    assert " " not in once
    assert normal(once) == once


@pytest.mark.parametrize(
    "url", ["", "a.example/f", "ftp://a.example", "https://", "https://h:99999", "https://h:0", "https://[::1"]
)
def test_an_invalid_web_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        normal(url)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/a b", "https://a.example/a%20b"),
        ("HTTP://B.Example/f", "http://b.example/f"),
        ("hTTps://b.example/ü#x", "https://b.example/%C3%BC"),
        ("//bücher.example/f", "https://xn--bcher-kva.example/f"),
    ],
)
def test_a_location_is_normalized(location: str, target: str) -> None:
    assert address_from("https://a.example/x/y", location) == target


@pytest.mark.parametrize("location", ["HTTP://b.example/f", "Http://b.example/f", "hTTP://B.EXAMPLE:80/f"])
def test_no_spelling_hides_a_downgrade_to_http(location: str) -> None:
    assert is_downgrade("https://a.example/f", address_from("https://a.example/f", location))


@pytest.mark.parametrize("location", ["https://u:s3cret@b.example/f", "//u@b.example/f", "https://@b.example/f"])
def test_a_redirect_to_an_address_with_credentials_is_refused(location: str) -> None:
    with pytest.raises(BadResponse, match=r"a\.example redirects to an address with credentials") as caught:
        address_from("https://a.example/f", location)
    assert "s3cret" not in caught.value.message


def test_one_origin_has_one_name() -> None:
    names = {"https://bücher.example/f", "HTTPS://BÜCHER.example:443/", "https://xn--bcher-kva.example/g?h"}
    assert {origin_of(name) for name in names} == {"https://xn--bcher-kva.example:443"}


def test_userinfo_is_decoded() -> None:
    from urllib.parse import urlsplit

    assert basic_authorization(urlsplit("https://us%C3%A9r:p%40%3A@a.example/")) == "Basic dXPDqXI6cEA6"
    assert basic_authorization(urlsplit("https://user@a.example/")) == "Basic dXNlcjo="
    assert basic_authorization(urlsplit("https://a.example/")) is None


@pytest.mark.parametrize(
    "uri", ["https://u:s3/cret@a.example/f", "HTTP://u:s3#cret@a.example/f", "https://u:s3?cret@a.example/f"]
)
def test_an_unquoted_password_is_redacted(uri: str) -> None:
    assert "cret" not in redact(uri)
