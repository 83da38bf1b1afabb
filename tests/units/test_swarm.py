"""What a node of a swarm asks for, and what comes of it in simulated time."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from fetcher.planning.asks import LATE, Ask
from fetcher.planning.owners import AHEAD, MUCH, PATIENCE
from fetcher.planning.ownership import BLOCK_CHUNKS, Layout, shares
from fetcher.planning.peer import SILENCE, every
from fetcher.planning.swarm import AWAITED, FEW, MANY, SETTLE, SPREAD, STARVED, WINDOW, Swarm

LAYOUT = Layout("ab" * 32, (16,) * 8)
ALL = (1 << LAYOUT.chunks) - 1
NEVER = float("inf")


def members(count: int) -> frozenset[str]:
    return frozenset(f"n{number}" for number in range(count))


def chunks(bits: int) -> list[int]:
    return [chunk for chunk in range(bits.bit_length()) if bits >> chunk & 1]


class TestShares:
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 32, 100])
    def test_every_chunk_has_one_owner(self, count: int) -> None:
        found = shares(LAYOUT, members(count))
        assert sorted(chunk for bits in found.values() for chunk in chunks(bits)) == list(range(LAYOUT.chunks))

    @pytest.mark.parametrize("count", [2, 3, 7, 32])
    def test_no_node_has_more_than_a_block_beyond_the_mean(self, count: int) -> None:
        size = LAYOUT.block_size(count)
        assert max(bits.bit_count() for bits in shares(LAYOUT, members(count)).values()) < LAYOUT.chunks / count + size

    def test_every_node_has_a_share_while_there_are_chunks_enough(self) -> None:
        assert all(shares(LAYOUT, members(LAYOUT.chunks)).values())

    def test_blocks_do_not_cross_from_one_file_into_another(self) -> None:
        odd = Layout("cd" * 32, (5, 1, 0, 7))
        assert [list(block) for block in odd.blocks(4)] == [[0, 1, 2, 3], [4], [5], [6, 7, 8, 9], [10, 11, 12]]

    def test_a_member_that_leaves_moves_few_blocks_of_others(self) -> None:
        before, after = shares(LAYOUT, members(8)), shares(LAYOUT, members(7))
        kept = sum((before[name] & after[name]).bit_count() for name in after)
        assert kept > LAYOUT.chunks * 0.55  # 7/8 at best; a hash of the number of members would keep a seventh

    def test_of_a_thousand_nodes_none_asks_for_more_than_one_block_beyond_another(self) -> None:
        layout = Layout("ab" * 32, (128,) * 16)
        counts = {bits.bit_count() for bits in shares(layout, members(1000)).values()}
        assert counts == {2, 3}

    def test_other_listings_have_other_owners(self) -> None:
        assert shares(LAYOUT, members(8)) != shares(Layout("cd" * 32, LAYOUT.files), members(8))


def swarm(*, mine: int = 0, settle: float = 0.0, connections: int = 4) -> Swarm:
    return Swarm("n0", LAYOUT, connections, Random(1), 0.0, settle, mine=mine)


def asked(node: Swarm, now: float, most: int = 1000) -> list[Ask]:
    """Everything that a node asks for now, all of it under way together."""
    found: list[Ask] = []
    while len(found) < most and (ask := node.next(now)) is not None:
        found.append(ask)
    return found


def brought(node: Swarm, now: float, most: int = 1000) -> list[Ask]:
    """The same, one after the other, each of which comes at once."""
    found: list[Ask] = []
    while len(found) < most and (ask := node.next(now)) is not None:
        node.done(ask, now)
        found.append(ask)
    return found


class TestAsking:
    def test_a_node_that_is_alone_asks_the_origin_for_everything_in_order(self) -> None:
        found = brought(swarm(), 0.0)
        assert found == [Ask(chunk, None) for chunk in range(LAYOUT.chunks)]

    def test_nothing_is_asked_for_twice_at_a_time(self) -> None:
        node = swarm(connections=32)
        node.heard("n1", ALL, 0.0)
        node.heard("n2", ALL, 0.0)
        found = [ask.chunk for ask in asked(node, 0.0)]
        assert len(found) == len(set(found)) >= FEW

    @pytest.mark.parametrize(("count", "at_origin"), [(100 * SPREAD, MANY // 4), (2 * SPREAD, FEW // 4)])
    def test_a_small_model_has_few_requests_at_the_origin_however_many_connections_there_are(
        self, count: int, at_origin: int
    ) -> None:
        layout = Layout("ab" * 32, (count,))
        node = Swarm("n0", layout, 100, Random(1), 0.0, 0.0)
        for name in ("n1", "n2", "n3"):
            node.heard(name, 0, 0.0)
        assert len(asked(node, 0.0)) == at_origin

    def test_requests_to_peers_and_to_the_origin_keep_step(self) -> None:
        node = swarm(connections=8)
        others = members(8) - {"n0"}
        for name in others:
            node.heard(name, 0, 0.0)
        assert len(asked(node, 0.0)) == 1
        for name in others:
            node.heard(name, ALL ^ shares(LAYOUT, members(8))["n0"], 1.0)
        assert Counter(ask.supplier is None for ask in asked(node, 1.0)) == {True: 1, False: 14}

    def test_a_node_asks_the_origin_for_its_share_and_nothing_else(self) -> None:
        node = swarm()
        node.heard("n1", 0, 0.0)
        found = brought(node, 0.0)
        assert {ask.supplier for ask in found} == {None}
        assert sum(1 << ask.chunk for ask in found) == shares(LAYOUT, members(2))["n0"]

    def test_the_more_owners_the_fewer_requests_each_has_at_the_origin(self) -> None:
        widths = []
        for count in (1, 2, 4, 32):
            node = swarm()
            for name in members(count) - {"n0"}:
                node.heard(name, 0, 0.0)
            widths.append(len(asked(node, 0.0)))
        assert widths == [4, 2, 1, 1]

    def test_peers_that_have_nothing_yet_count_at_the_origin_for_a_moment(self) -> None:
        node = swarm(connections=8)
        node.awaited = 7
        assert not node.alone(0.0)
        assert len(asked(node, 0.0)) == 1
        assert node.alone(AWAITED)
        assert len(asked(node, AWAITED)) == 7

    def test_nodes_that_do_not_know_each_other_yet_begin_at_different_chunks(self) -> None:
        nodes = [Swarm(f"n{number}", LAYOUT, 8, Random(number), 0.0, 0.0) for number in range(8)]
        for node in nodes:
            node.awaited = 7
        assert len({ask.chunk for node in nodes for ask in asked(node, 0.0)}) >= 6

    def test_what_peers_have_comes_from_them(self) -> None:
        node = swarm()
        for name in ("n1", "n2"):
            node.heard(name, ALL, 0.0)
        assert {ask.supplier for ask in brought(node, 0.0)} == {"n1", "n2"}

    def test_the_beginnings_of_the_first_files_come_first(self) -> None:
        layout = Layout("ab" * 32, (100, 100, 100))
        first = {start + offset for start in (0, 100, 200) for offset in range(WINDOW)}
        asks = set[int]()
        for seed in range(400):
            node = Swarm("n0", layout, MANY, Random(seed), 0.0, 0.0)
            for name in ("n1", "n2"):
                node.heard(name, (1 << 300) - 1, 0.0)
            asks |= {ask.chunk for ask in asked(node, 0.0)}
        assert asks == first

    def test_a_busy_peer_is_asked_later(self) -> None:
        node = swarm(connections=FEW)
        for name in ("n1", "n2"):
            node.heard(name, ALL, 0.0)
        while (ask := node.next(0.0)) is not None and ask.supplier != "n1":
            node.done(ask, 0.0)
        assert ask is not None
        node.busy(ask, 0.0, 1.0)
        assert {each.supplier for each in asked(node, 0.5, FEW - 2)} == {"n2"}
        assert "n1" in {each.supplier for each in asked(node, 1.0)}

    def test_a_chunk_that_takes_much_longer_than_others_did_is_asked_for_again(self) -> None:
        node = swarm()
        for name in ("n1", "n2"):
            node.heard(name, ALL, 0.0)
        slow = node.next(0.0)
        assert slow is not None
        for second in range(16):
            if (ask := node.next(second)) is not None:
                assert ask.chunk != slow.chunk
                node.done(ask, second + 1.0)
        assert not node.overdue(slow, LATE)
        assert node.overdue(slow, LATE + 0.1)
        node.late(slow, LATE + 0.1)
        assert slow.chunk in {ask.chunk for ask in brought(node, LATE + 0.1)}

    def test_so_is_one_of_the_origin_that_lags_behind_others_of_the_origin(self) -> None:
        node = swarm()
        node.heard("n1", 0, 0.0)
        slow, *_ = asked(node, 0.0, 1)
        assert slow.supplier is None
        for second in range(8):
            keeps_step = chunks(shares(LAYOUT, members(2))["n1"])[:second]
            node.heard("n1", sum(1 << chunk for chunk in keeps_step), second)
            ask = node.next(second)
            assert ask is not None
            node.done(ask, second + 1.0)
        assert not node.overdue(slow, LATE)
        assert node.overdue(slow, LATE + 0.1)

    def test_the_peer_that_is_asked_for_least_comes_first(self) -> None:
        node = swarm(connections=FEW)
        for name in ("n1", "n2", "n3", "n4"):
            node.heard(name, ALL, 0.0)
        assert {ask.supplier for ask in asked(node, 0.0, 4)} == {"n1", "n2", "n3", "n4"}

    def test_a_node_waits_for_the_maps_of_its_peers_before_it_asks_the_origin(self) -> None:
        node = swarm(settle=SETTLE)
        assert node.next(0.0) is None
        assert node.next(SETTLE) == Ask(0, None)

    def test_neighbouring_chunks_of_one_supplier_are_one_request(self) -> None:
        node = swarm(connections=2)
        ask = node.next(0.0, most=5)
        assert ask == Ask(0, None, 5)
        assert node.next(0.0, most=5) == Ask(5, None, 5)

    def test_a_request_ends_with_its_file_and_leaves_something_for_every_connection(self) -> None:
        node = swarm(connections=1)
        assert node.next(0.0, most=1000) == Ask(0, None, 16)
        assert swarm(connections=16).next(0.0, most=1000) == Ask(0, None, 2)

    def test_only_what_is_left_is_asked_for(self) -> None:
        node = swarm()
        node.left(0, 16, 0b1000)
        for start in range(16, LAYOUT.chunks, 16):
            node.left(start, 16, 0)
        assert brought(node, 0.0) == [Ask(3, None)]
        node.left(16, 16, 0b11 << 16)
        assert [ask.chunk for ask in brought(node, 0.0)] == [16, 17], "they were wrong, and are missing again"

    def test_a_comparison_asks_the_origin_for_one_chunk_instead(self) -> None:
        node = swarm()
        node.heard("n1", ALL, 0.0)
        ask = node.next(0.0, most=4)
        assert ask is not None
        assert node.instead(ask, 0.0) == Ask(ask.chunk, None)

    def test_a_node_that_passes_nothing_on_asks_its_peers_and_then_the_origin_for_anything(self) -> None:
        node = Swarm(None, LAYOUT, 4, Random(1), 0.0, 0.0)
        for name in ("n1", "n2"):
            node.heard(name, 0b1111, 0.0)
        found = brought(node, 0.0)
        assert {ask.chunk for ask in found if ask.supplier is not None} == {0, 1, 2, 3}
        assert node.missing == 0

    def test_it_asks_the_origin_once_its_only_peer_is_silent(self) -> None:
        node = Swarm(None, LAYOUT, 4, Random(1), 0.0, 0.0)
        node.heard("n1", 0b1, 0.0)
        node.next(0.0)
        assert node.owners(SILENCE + 1) == frozenset()
        found = node.next(SILENCE + 1)
        assert found is not None
        assert found.supplier is None

    def test_a_node_has_a_share_once_its_server_answers(self) -> None:
        node = Swarm(None, LAYOUT, 4, Random(1), 0.0, 0.0)
        node.heard("http://a", 0, 0.0, "n1")
        assert node.owners(0.0) == {"n1"}
        node.joined("n0")
        assert node.owners(0.0) == {"n0", "n1"}


class TestKeepingAbreast:
    """Every node is about as far with its share as the others: who had a chunk from the origin sends it to all."""

    def node(self) -> Swarm:
        """One of three nodes, of whose share `AHEAD` chunks have come, and of others' none."""
        node = swarm()
        for name in ("n1", "n2"):
            node.heard(name, 0, 0.0)
        for ask in brought(node, 0.0, AHEAD):
            assert ask.supplier is None
        return node

    def brings(self, node: Swarm, count: int, now: float) -> None:
        for name in ("n1", "n2"):
            node.heard(name, sum(1 << chunk for chunk in chunks(shares(LAYOUT, members(3))[name])[:count]), now)

    def asks_the_origin(self, node: Swarm, now: float) -> bool:
        return any(ask.supplier is None for ask in asked(node, now))

    def test_a_node_that_is_ahead_leaves_the_origin_to_the_others_until_they_have_caught_up(self) -> None:
        node = self.node()
        assert not self.asks_the_origin(node, 1.0)
        self.brings(node, 1, 1.5)
        assert self.asks_the_origin(node, 2.0)

    def test_it_waits_for_nobody_who_brings_nothing(self) -> None:
        node = self.node()
        self.brings(node, 0, PATIENCE)
        assert not self.asks_the_origin(node, PATIENCE)
        assert self.asks_the_origin(node, PATIENCE + 1)

    def test_nor_for_those_who_have_all_of_theirs(self) -> None:
        node = self.node()
        self.brings(node, LAYOUT.chunks, 0.5)
        assert self.asks_the_origin(node, 1.0)


class TestSparing:
    """Nodes that have their shares bring the last chunks of who has much left: it would have to send each of them to all."""

    def left_and_asked(self, count: int, *, mine: int = 0) -> tuple[list[int], list[set[int]]]:
        """Of one of three nodes `count` chunks are left, and of the others `mine`. Returns those, and what others ask for."""
        owed, found = shares(LAYOUT, members(3)), []
        left = chunks(owed["n1"])[-count:]
        missing = sum(1 << chunk for name in ("n0", "n2") for chunk in chunks(owed[name])[:mine])
        missing |= sum(1 << chunk for chunk in left)
        for me, other in (("n0", "n2"), ("n2", "n0")):
            node = Swarm(me, LAYOUT, 4, Random(1), 0.0, 0.0, mine=ALL & ~missing)
            for name in ("n1", other):
                node.heard(name, 0, 0.0)
            node.next(0.0)
            node.heard("n1", owed["n1"] & ~missing, 1.0)
            found.append({ask.chunk for ask in brought(node, 1.0) if ask.supplier is None})
        return left, found

    def test_each_of_the_last_chunks_has_one_node_that_brings_it_and_the_first_are_the_owners(self) -> None:
        left, (first, second) = self.left_and_asked(5 * BLOCK_CHUNKS)
        assert first | second == set(left[MUCH:])
        assert not first & second
        assert first
        assert second

    def test_an_owner_that_has_little_left_brings_it_itself(self) -> None:
        _, found = self.left_and_asked(MUCH)
        assert found == [set(), set()]

    def test_one_at_a_time(self) -> None:
        node = Swarm("n0", LAYOUT, 4, Random(1), 0.0, 0.0, mine=ALL & ~shares(LAYOUT, members(2))["n1"])
        node.heard("n1", 0, 0.0)
        node.next(0.0)
        node.heard("n1", sum(1 << chunk for chunk in chunks(shares(LAYOUT, members(2))["n1"])[:BLOCK_CHUNKS]), 1.0)
        assert Counter(ask.supplier for ask in asked(node, 1.0))[None] == 1


class TestMaps:
    @pytest.mark.parametrize(("peers", "seconds"), [(0, 0.5), (1, 0.5), (32, 0.5), (64, 0.5), (128, 1.0), (1024, 8.0)])
    def test_of_many_peers_each_is_asked_more_seldom(self, peers: int, seconds: float) -> None:
        assert every(peers) == seconds

    def test_and_is_silent_later(self) -> None:
        node = swarm()
        for name in members(1000) - {"n0"}:
            node.heard(name, 0, 0.0)
        assert len(node.owners(2 * every(1000))) == 1000
        assert len(node.owners(3 * every(1000))) == 1


class TestOwners:
    def test_shares_are_those_of_nodes_whatever_their_addresses_are(self) -> None:
        one, other = swarm(), swarm()
        one.heard("http://10.0.0.1:1", 0, 0.0, "n1")
        other.heard("http://[fd00::1]:1", 0, 0.0, "n1")
        assert brought(one, 0.0) == brought(other, 0.0)

    def test_a_peer_that_is_gone_owns_nothing_and_what_it_was_asked_for_is_asked_again(self) -> None:
        node = swarm()
        node.heard("n1", ALL, 0.0)
        ask = node.next(0.0)
        assert ask is not None
        node.gone("n1")
        assert node.alone(0.0)
        node.failed(ask, 0.0)
        node.done(ask, 0.0)
        assert ask.chunk not in [each.chunk for each in brought(node, 0.0)]

    def with_peer(self, has: int = 0, *more: str) -> Swarm:
        node = swarm()
        for name in ("n1", *more):
            node.heard(name, has if name == "n1" else 0, 0.0)
        node.next(0.0)
        return node

    def test_a_silent_peer_owns_nothing(self) -> None:
        node = self.with_peer()
        assert node.owners(SILENCE) == {"n0", "n1"}
        assert node.owners(SILENCE + 0.1) == {"n0"}

    def test_the_share_of_a_silent_peer_is_asked_for_by_the_rest(self) -> None:
        node = self.with_peer()
        brought(node, 0.0)
        assert {ask.supplier for ask in brought(node, SILENCE + 1)} == {None}
        assert not node.missing & ~1  # chunk 0 is still under way

    def told(self, node: Swarm, name: str, has: int, now: float) -> None:
        node.heard(name, has, now)
        node.next(now)

    def test_an_owner_that_stops_is_taken_over_after_three_of_its_block_times(self) -> None:
        node = self.with_peer()
        owed = chunks(shares(LAYOUT, members(2))["n1"])
        for number in range(2 * BLOCK_CHUNKS):  # a block in 4 seconds
            node.heard("n1", sum(1 << chunk for chunk in owed[: number + 1]), number + 1.0)
        now = 2 * BLOCK_CHUNKS + 0.0
        has = node.peers["n1"].has
        for second in range(1, 30):
            node.heard("n1", has, now + second)
            assert ("n1" in node.owners(now + second)) == (second <= 3 * BLOCK_CHUNKS)

    def test_a_fast_owner_has_five_seconds(self) -> None:
        node = self.with_peer()
        owed = chunks(shares(LAYOUT, members(2))["n1"])
        node.heard("n1", sum(1 << chunk for chunk in owed[:BLOCK_CHUNKS]), 0.1)
        node.heard("n1", node.peers["n1"].has, 5.2)
        assert node.owners(0.1 + PATIENCE) == {"n0", "n1"}
        assert node.owners(0.2 + PATIENCE) == {"n0"}

    def test_nobody_is_late_at_an_origin_that_has_brought_nobody_a_block(self) -> None:
        node = self.with_peer()
        node.heard("n1", 0, 100.0)
        assert node.owners(100.0) == {"n0", "n1"}

    def test_an_owner_that_brings_something_again_has_its_share_again(self) -> None:
        node = self.with_peer()
        owed = chunks(shares(LAYOUT, members(2))["n1"])
        node.heard("n1", sum(1 << chunk for chunk in owed[:BLOCK_CHUNKS]), 0.1)
        self.told(node, "n1", node.peers["n1"].has, 9.0)
        assert node.owners(9.0) == {"n0"}
        self.told(node, "n1", node.peers["n1"].has, 18.0)
        assert node.owners(18.0) == {"n0"}
        self.told(node, "n1", sum(1 << chunk for chunk in owed[: BLOCK_CHUNKS + 1]), 19.0)
        assert node.owners(19.0) == {"n0", "n1"}

    def test_a_peer_that_fails_twice_is_no_owner_for_a_while_and_each_time_longer(self) -> None:
        node, now, pauses = self.with_peer(ALL, "n2"), 0.0, []
        for _ in range(4):
            assert node.failed(Ask(1, "n1"), now)
            assert not node.failed(Ask(2, "n1"), now), "requests that fail together are one failure"
            pauses.append(node.peers["n1"].avoided_until - now)
            for peer in node.peers:
                node.heard(peer, node.peers[peer].has, now)
            assert ("n1" in node.owners(now)) == (len(pauses) == 1)
            now = node.peers["n1"].avoided_until
        assert pauses == [1.0, SILENCE, 2 * SILENCE, 4 * SILENCE]

    def test_a_banned_peer_is_asked_for_nothing(self) -> None:
        node = self.with_peer(ALL)
        node.banned("n1")
        assert {ask.supplier for ask in brought(node, 1.0)} == {None}

    @pytest.mark.parametrize("identity", ["n1", "another"])
    @pytest.mark.parametrize("gone", [False, True], ids=["still there", "gone for a moment"])
    def test_it_does_not_escape_by_another_identity_or_by_going(self, identity: str, gone: bool) -> None:
        node = self.with_peer(ALL)
        node.banned("n1")
        if gone:
            node.gone("n1")
        node.heard("n1", ALL, 1.0, identity)
        assert node.alone(1.0)
        assert {ask.supplier for ask in brought(node, 1.0)} == {None}


class TestBelief:
    def test_a_node_that_has_enough_under_way_does_not_doubt_a_peer(self) -> None:
        node = swarm(connections=100)
        node.heard("n1", ALL, 0.0)
        assert {ask.supplier for ask in asked(node, 0.0)} == {"n1"}

    def test_one_peer_that_claims_everything_keeps_nobody_from_the_origin(self) -> None:
        node = swarm()
        node.heard("n1", ALL, 0.0)
        ask = node.next(0.0)
        assert ask is not None
        assert ask.supplier == "n1"
        node.busy(ask, 0.0, 1.0)
        assert node.next(0.0) == Ask(chunks(shares(LAYOUT, members(2))["n0"])[0], None)

    def test_two_do(self) -> None:
        node = swarm()
        for name in ("n1", "n2"):
            node.heard(name, ALL, 0.0)
        assert {ask.supplier for ask in asked(node, 0.0)} == {"n1", "n2"}

    def test_one_does_after_a_verified_file(self) -> None:
        node = swarm()
        node.heard("n1", ALL, 0.0)
        node.verified(["n1"])
        assert {ask.supplier for ask in asked(node, 1.0)} == {"n1"}


class TestRefusing:
    @pytest.mark.parametrize("me", ["n0", None])
    @pytest.mark.parametrize(("names", "proven"), [(["n1"], 1), (["n1", "n2"], 0), (["n1", "n2"], 2), (["n1", "n2", "n3"], 0)])
    def test_peers_all_of_which_refuse_keep_nobody_from_the_origin(self, me: str | None, names: list[str], proven: int) -> None:
        """A chunk each 29 seconds does not help: without any a node would be starved."""
        node = Swarm(me, LAYOUT, 16, Random(1), 0.0, 0.0)
        given, asks = 0.0, list[Ask]()
        for step in range(2 * 12):
            now = step / 2
            for name in names:
                node.heard(name, ALL, now)
            node.verified(names[:proven])
            while (ask := node.next(now)) is not None and ask.supplier is not None:
                node.done(ask, now) if now == given else node.busy(ask, now, now + 1.0)
                given = -1.0
            asks += [ask] if ask is not None else []
        assert asks

    def test_the_only_peer_that_has_something_is_still_asked_for_one_thing_at_a_time(self) -> None:
        """It may have been asked by too many, and the origin may be gone."""
        node = swarm(connections=16)
        for second in range(20):
            node.heard("n1", ALL, second)
            while (ask := node.next(second)) is not None and ask.supplier is not None:
                node.busy(ask, second, second + 1.0)
            if ask is not None:
                node.ended(ask)
        node.heard("n1", ALL, 21.0)
        assert Counter(ask.supplier for ask in asked(node, 21.0))["n1"] == 1


class TestDisputes:
    def test_a_disputed_file_comes_from_the_origin_and_its_suspect_is_asked_for_nothing(self) -> None:
        node = swarm()
        for name in ("n1", "n2"):
            node.heard(name, ALL, 0.0)
        node.disputed(0xFFFF, {"n1"})
        found = brought(node, 0.0)
        assert {ask.chunk for ask in found if ask.supplier is None} == set(range(16))
        assert {ask.supplier for ask in found} == {None, "n2"}

    def test_a_suspect_that_goes_and_comes_is_asked_for_nothing_either(self) -> None:
        node = swarm()
        node.heard("n1", ALL, 0.0)
        node.disputed(0xFFFF, {"n1"})
        node.gone("n1")
        node.heard("n1", ALL, 0.0, "another")
        assert {ask.supplier for ask in brought(node, 0.0)} == {None}

    def test_who_is_cleared_is_asked_again(self) -> None:
        node = swarm()
        node.heard("n1", ALL, 0.0)
        node.disputed(0xFFFF, {"n1"})
        node.cleared("n1")
        assert "n1" in {ask.supplier for ask in brought(node, 0.0)}


class TestFallingBack:
    def test_a_node_that_gets_nothing_asks_the_origin_whoever_should(self) -> None:
        node = swarm()
        for name in ("n1", "n2"):
            node.heard(name, ALL, 0.0)
        while (ask := node.next(0.0)) is not None:
            node.busy(ask, 0.0, 1000.0)
        for name in ("n1", "n2"):
            node.heard(name, ALL, STARVED + 1)
        found = node.next(STARVED + 1)
        assert found is not None
        assert found.supplier is None

    def test_it_goes_on_with_the_origin_until_a_peer_brings_something(self) -> None:
        node = swarm()
        node.next(0.0)
        now = STARVED + 1
        for _ in range(10):
            for name in ("n1", "n2"):
                node.heard(name, ALL, now)  # they have all, and give nothing
            ask = node.next(now)
            assert ask is not None
            assert ask.supplier is None
            node.done(ask, now)
            now += 1.0
        asks = asked(node, now)
        given = next(ask for ask in asks if ask.supplier is not None)
        for ask in asks:
            node.done(ask, now) if ask is given else node.ended(ask)
        assert {ask.supplier for ask in brought(node, now + 1.0)} == {"n1", "n2"}

    def test_at_the_end_the_next_in_line_duplicates_one_late_block_and_no_more(self) -> None:
        owed = shares(LAYOUT, members(3))
        late = chunks(owed["n1"])
        left = 1 << late[-1] | 1 << late[-1 - BLOCK_CHUNKS]  # of two blocks
        found: dict[str, set[int]] = {}
        for me in ("n0", "n2"):
            node = Swarm(me, LAYOUT, 4, Random(1), 0.0, 0.0, mine=ALL & ~left)
            for name in members(3) - {me}:
                node.heard(name, 0, 0.0)
            node.next(0.0)
            node.heard("n1", sum(1 << chunk for chunk in late[:BLOCK_CHUNKS]), 2.0)
            for name in members(3) - {me}:
                node.heard(name, node.peers[name].has, 6.0)
            found[me] = {ask.chunk // BLOCK_CHUNKS for ask in brought(node, 6.0) if ask.supplier is None}
        assert all(len(blocks) <= 1 for blocks in found.values())
        assert sum(map(len, found.values())) == 1
