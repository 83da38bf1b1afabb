"""Certificates of nodes: what an authority vouches for, and when it does so again."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cluster.certificates import AUTHORITY_DAYS, NODE_DAYS, Authority, is_of, new_authority, new_key, now
from fetcher.errors import ConfigurationError

NOW = now()
ADDRESS = "https://10.0.0.7:8650"
KEY = new_key()[1]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(*new_authority(NOW))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> str:
    return authority.issue("node-1", ADDRESS, KEY, NOW)


def test_it_vouches_for_what_it_has_issued(authority: Authority, certificate: str) -> None:
    assert authority.vouches(certificate, "node-1", ADDRESS, KEY, NOW)
    assert is_of(certificate, KEY)


@pytest.mark.parametrize(
    ("node", "address", "key"),
    [
        ("node-2", ADDRESS, KEY),
        ("node-1", "https://10.0.0.8:8650", KEY),
        ("node-1", ADDRESS, new_key()[1]),
        ("node-1", ADDRESS, "nonsense"),
    ],
)
def test_and_for_no_other_node_address_or_key(
    authority: Authority, certificate: str, node: str, address: str, key: str
) -> None:
    assert not authority.vouches(certificate, node, address, key, NOW)


@pytest.mark.parametrize("text", [None, "", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_vouched_for_by_nobody(authority: Authority, text: str | None) -> None:
    assert not authority.vouches(text, "node-1", ADDRESS, KEY, NOW)
    assert not is_of(text, KEY)


def test_another_authority_does_not(certificate: str) -> None:
    assert not Authority(*new_authority(NOW)).vouches(certificate, "node-1", ADDRESS, KEY, NOW)


@pytest.mark.parametrize(
    ("days", "good"), [(0, True), (NODE_DAYS * 0.6, True), (NODE_DAYS * 0.7, False), (NODE_DAYS + 1, False)]
)
def test_a_certificate_is_replaced_when_a_third_of_its_life_is_left(
    authority: Authority, certificate: str, days: float, good: bool
) -> None:
    assert authority.vouches(certificate, "node-1", ADDRESS, KEY, NOW + timedelta(days=days)) == good


def test_so_is_an_authority(authority: Authority) -> None:
    assert not authority.ends_soon(NOW)
    assert authority.ends_soon(NOW + timedelta(days=AUTHORITY_DAYS * 0.7))


def test_a_node_vouches_for_nobody(authority: Authority) -> None:
    private, public = new_key()
    with pytest.raises(ConfigurationError, match="no authority"):
        Authority(authority.issue("node-1", ADDRESS, public, NOW).encode(), private)


@pytest.mark.parametrize(
    "address",
    [
        "https://name:1",
        "https://169.254.169.254:80",
        "https://[::ffff:a9fe:a9fe]:80",
        "https://0.0.0.0:1",
        "https://[ff02::1]:1",
        "https://[:::::]:1",
        "https://10.0.0.7:99999",
        "https://10.0.0.7:0",
        "https://10.0.0.7",
        "https://10.0.0.7:8650/path",
        "https://user@10.0.0.7:8650",
        "http://10.0.0.7:8650",
        "",
    ],
)
def test_no_certificate_names_an_address_where_no_node_is(authority: Authority, address: str) -> None:
    with pytest.raises(ConfigurationError):
        authority.issue("node-1", address, KEY, NOW)


def test_nor_does_one_that_the_node_has_already_make_its_port_good(authority: Authority, certificate: str) -> None:
    with pytest.raises(ConfigurationError, match="99999"):
        authority.vouches(certificate, "node-1", "https://10.0.0.7:99999", KEY, NOW)


def _text(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(encoded).decode()


@pytest.mark.parametrize("kind", ["RSA", "another curve", "nonsense"])
def test_no_certificate_is_for_a_key_of_another_kind(authority: Authority, kind: str) -> None:
    keys = {
        "RSA": _text(rsa.generate_private_key(65537, 2048).public_key()),
        "another curve": _text(ec.generate_private_key(ec.SECP384R1()).public_key()),
        "nonsense": base64.b64encode(b"nonsense").decode(),
    }
    with pytest.raises(ConfigurationError):
        authority.issue("node-1", ADDRESS, keys[kind], NOW)
