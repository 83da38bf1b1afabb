"""Which IP addresses the requests for a source may be connected to."""

from __future__ import annotations

import pytest

from fetcher.reach import Reach

PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e"]
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.100.100.200",  # the metadata service of a cloud
    "fd00:ec2::254",  # of another
    "::ffff:10.1.2.3",
    "64:ff9b::a01:203",
    "2002:a01:203::1",
]
LOCAL = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "169.254.169.254",
    "fe80::1",
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "::",
    "224.0.0.1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_for_every_host(address: str) -> None:
    assert Reach().allows(address, named=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_for_hosts_that_are_named(address: str) -> None:
    assert Reach().allows(address, named=True)
    assert not Reach().allows(address, named=False)


@pytest.mark.parametrize("address", LOCAL)
def test_this_machine_and_this_link_are_for_nobody(address: str) -> None:
    assert not Reach().allows(address, named=True)


def test_loopback_is_for_tests() -> None:
    assert Reach(loopback=True).allows("127.0.0.1", named=False)
    assert not Reach(loopback=True).allows("169.254.169.254", named=True)


def test_what_is_no_address_is_for_nobody() -> None:
    assert not Reach(loopback=True).allows("localhost", named=True)
