"""Who is a peer, by what people write and what name servers say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ConfigurationError
from fetcher.peers.addresses import Addresses, Name, addresses_of
from fetcher.peers.membership import ABSENT, MOST, Membership, change

NAME = Name("http", "cache.models", 8650)
ME = "http://10.0.0.1:8650"


class TestAddresses:
    def test_servers_and_names_are_read_as_people_write_them(self) -> None:
        found = addresses_of(["http://10.0.0.7:8650/", "https://Node-3", " dns://cache.models:8650", "dns+https://[::1]:1"])
        assert found.fixed == ("http://10.0.0.7:8650", "https://node-3:443")
        assert found.names == (NAME, Name("https", "::1", 1))

    def test_an_address_that_is_given_twice_is_one(self) -> None:
        assert addresses_of(["http://a:80", "http://a"]).fixed == ("http://a:80",)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "cache.models:8650",
            "dns://cache.models",
            "dns://cache.models:0",
            "dns://:8650",
            "dns://cache:99999",
            "ftp://a:1",
            "http://",
            "http://a/path",
            "http://a?query",
            "http://[::1",
        ],
    )
    def test_what_is_no_address_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ConfigurationError, match=r"malformed; write .*dns://cache\.models:8650"):
            addresses_of([text])

    def test_a_password_is_refused_and_not_repeated(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            addresses_of(["http://user:hunter2@a:8650"])
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("address", "peer"),
        [
            ("10.0.0.7", "http://10.0.0.7:8650"),
            ("fd00::7", "http://[fd00::7]:8650"),
            ("169.254.169.254", None),
            ("fe80::1%eth0", None),
            ("224.0.0.1", None),
            ("0.0.0.0", None),  # noqa: S104 - nobody listens
            ("nonsense", None),
        ],
    )
    def test_a_name_has_a_peer_at_each_address_that_a_node_can_have(self, address: str, peer: str | None) -> None:
        assert NAME.peer(address) == peer


def membership(*fixed: str) -> Membership:
    return Membership(Addresses(fixed, (NAME,)), ME)


class TestMembership:
    def test_who_is_named_joins_and_this_node_does_not(self) -> None:
        found = membership("http://10.0.0.9:8650", ME)
        found.answered(NAME, ["10.0.0.1", "10.0.0.2"], 0.0)
        assert found.peers() == {"http://10.0.0.9:8650", "http://10.0.0.2:8650"}

    def test_who_is_not_named_for_a_while_leaves(self) -> None:
        found = membership()
        found.answered(NAME, ["10.0.0.2", "10.0.0.3"], 0.0)
        found.answered(NAME, ["10.0.0.2"], ABSENT)
        assert len(found.peers()) == 2
        found.answered(NAME, ["10.0.0.2"], ABSENT + 1)
        assert found.peers() == {"http://10.0.0.2:8650"}

    def test_a_name_server_that_says_nothing_takes_nobody_away(self) -> None:
        found = membership()
        found.answered(NAME, ["10.0.0.2"], 0.0)
        found.answered(NAME, [], 10 * ABSENT)
        found.answered(NAME, ["nonsense"], 20 * ABSENT)
        assert found.peers() == {"http://10.0.0.2:8650"}

    def test_given_addresses_stay_whatever_name_servers_say(self) -> None:
        found = membership("http://10.0.0.9:8650")
        found.answered(NAME, ["10.0.0.9"], 0.0)
        found.answered(NAME, ["10.0.0.2"], ABSENT + 1)
        assert "http://10.0.0.9:8650" in found.peers()

    def test_of_too_many_each_node_has_others_and_always_the_same(self) -> None:
        addresses = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(2 * MOST)]
        found = []
        for me in (ME, "http://10.9.9.9:8650", ME):
            each = Membership(Addresses((), (NAME,)), me)
            each.answered(NAME, addresses, 0.0)
            found.append(each.peers())
        assert [len(each) for each in found] == [MOST] * 3
        assert found[0] == found[2] != found[1]

    @given(st.frozensets(st.sampled_from("abcd")), st.frozensets(st.sampled_from("abcd")))
    def test_a_change_leads_from_one_membership_to_the_other(self, before: frozenset[str], after: frozenset[str]) -> None:
        joined, left = change(before, after)
        assert (before | joined) - left == after
        assert not joined & before
        assert not left & after
