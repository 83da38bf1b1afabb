"""SHA-256 in lanes equals that of hashlib, for all instructions, lanes, splits and lengths."""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetcher.errors import DigestUnavailable
from fetcher.integrity import lanes
from fetcher.testing.checkpoint import random_bytes
from tests.lab.availability import missing

_sha256: Any = importlib.import_module("fetcher.integrity._sha256") if lanes.available() else None
CONTENT = random_bytes("lanes", 300_000)
BORDERS = (*range(130), *range(183, 200), *(64 * 1024 + offset for offset in (-65, -64, -9, -8, -1, 0, 1, 55, 56, 64)))


@pytest.fixture(autouse=True)
def the_extension_is_here() -> None:
    if not lanes.available():
        missing("SHA-256 extension", "install gcc and python3-dev, remove .venv and run make setup")


@pytest.fixture(params=[0, 1, 2], ids=["any machine", "AVX2", "AVX-512"])
def widths(request: pytest.FixtureRequest) -> Iterator[tuple[int, ...]]:
    """1 and the numbers of lanes with the instructions of one level. A missing level falls back to a lower one."""
    yield (1, *_sha256.use_level(request.param))
    _sha256.use_level(2)


def always(width: int) -> bytes:
    return bytes([width] * (lanes.MOST + 1))


def digests(contents: list[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


class TestLanes:
    def test_every_length_around_block_boundaries(self, widths: tuple[int, ...]) -> None:
        contents = [CONTENT[:length] for length in BORDERS]
        for width in widths:
            hashers = tuple(_sha256.Sha256() for _ in contents)
            _sha256.advance(hashers, tuple(contents), always(width))
            assert [hasher.hexdigest() for hasher in hashers] == digests(contents), width

    def test_every_number_of_streams(self, widths: tuple[int, ...]) -> None:
        for width in widths:
            for count in range(lanes.MOST + 4):
                contents = [CONTENT[index : 5000 + 77 * index] for index in range(count)]
                hashers = tuple(_sha256.Sha256() for _ in contents)
                _sha256.advance(hashers, tuple(contents), always(width))
                assert [hasher.hexdigest() for hasher in hashers] == digests(contents), (width, count)

    @settings(max_examples=150, deadline=None)
    @given(
        calls=st.lists(
            st.tuples(
                st.lists(st.integers(0, 400), min_size=1, max_size=18),
                st.lists(st.sampled_from([1, 4]), min_size=lanes.MOST + 1, max_size=lanes.MOST + 1),
                st.booleans(),
            ),
            max_size=6,
        )
    )
    def test_any_split_of_the_updates_across_methods_and_processes(
        self, calls: list[tuple[list[int], list[int], bool]]
    ) -> None:
        hashers, fed = [_sha256.Sha256() for _ in range(18)], [b""] * 18
        for sizes, plan, saved in calls:
            pieces = [CONTENT[size : 2 * size] for size in sizes]
            _sha256.advance(tuple(hashers[: len(sizes)]), tuple(pieces), bytes(plan))
            fed = [known + piece for known, piece in zip(fed, [*pieces, *[b""] * 18], strict=False)]
            if saved:
                hashers = [_sha256.Sha256.restore(hasher.save()) for hasher in hashers]
        assert [hasher.hexdigest() for hasher in hashers] == digests(fed)
        assert [hasher.length for hasher in hashers] == [len(content) for content in fed]

    @pytest.mark.parametrize("openssl", [True, False])
    def test_any_split_of_a_single_stream(self, openssl: bool) -> None:
        assert _sha256.use_openssl(lanes.address_of_openssl() if openssl else 0) in (openssl, False)
        for split in BORDERS:
            hasher = _sha256.Sha256()
            hasher.update(CONTENT[:split])
            hasher.update(memoryview(CONTENT)[split:70_000])
            assert hasher.hexdigest() == hashlib.sha256(CONTENT[:70_000]).hexdigest()
        _sha256.use_openssl(lanes.address_of_openssl())

    def test_a_digest_can_be_read_between_updates(self) -> None:
        hasher = _sha256.Sha256()
        for position in range(0, 1000, 37):
            hasher.update(CONTENT[position : position + 37])
            assert hasher.hexdigest() == hashlib.sha256(CONTENT[: position + 37]).hexdigest()

    def test_threads_advance_different_streams_concurrently(self) -> None:
        def work(number: int) -> list[str]:
            hashers = tuple(_sha256.Sha256() for _ in range(16))
            for _ in range(20):
                _sha256.advance(hashers, tuple(CONTENT[number + lane :] for lane in range(16)), always(4))
            return [hasher.hexdigest() for hasher in hashers]

        with ThreadPoolExecutor(4) as pool:
            for number, found in enumerate(pool.map(work, range(8))):
                assert found == digests([CONTENT[number + lane :] * 20 for lane in range(16)])

    def test_other_threads_run_during_hashing(self) -> None:
        """The other thread can only run if the call releases the GIL."""
        seen, done = [], threading.Event()
        large = bytes(64 * 1024 * 1024)

        def watch() -> None:
            while not done.is_set():
                seen.append(hasher.length)

        hasher = _sha256.Sha256()
        watching = threading.Thread(target=watch)
        watching.start()
        before = len(seen)
        hasher.update(large)
        during = len(seen) - before
        done.set()
        watching.join()
        assert during > 0


class TestMisuse:
    @pytest.mark.parametrize("state", [b"", bytes(39), bytes(41), bytes(32) + b"\0" * 7 + b"\x05" + b"1234"])
    def test_an_invalid_saved_state_is_refused(self, state: bytes) -> None:
        with pytest.raises(ValueError, match="not a saved SHA-256 state"):
            _sha256.Sha256.restore(state)
        with pytest.raises(DigestUnavailable):
            lanes.restored(state, length=4)

    def test_a_saved_state_of_another_length_is_refused(self) -> None:
        hasher = _sha256.Sha256()
        hasher.update(b"abc")
        assert lanes.restored(hasher.save(), length=3).hexdigest() == hashlib.sha256(b"abc").hexdigest()
        with pytest.raises(DigestUnavailable, match="3 bytes, not 4"):
            lanes.restored(hasher.save(), length=4)

    def test_the_same_digest_twice_in_a_call_is_refused(self) -> None:
        hasher = _sha256.Sha256()
        with pytest.raises(RuntimeError, match="another thread advances this digest"):
            _sha256.advance((hasher, hasher), (b"a", b"b"), always(1))
        hasher.update(b"c")
        assert hasher.hexdigest() == hashlib.sha256(b"c").hexdigest()

    @pytest.mark.parametrize("widths", [b"", bytes(17), always(3), always(32), always(1)[:-1]])
    def test_unavailable_lanes_are_refused(self, widths: bytes) -> None:
        with pytest.raises(ValueError, match="widths"):
            _sha256.advance((), (), widths)

    def test_invalid_buffers_are_refused(self) -> None:
        hasher = _sha256.Sha256()
        for wrong, error in ((memoryview(b"abcdef")[::2], BufferError), ("text", TypeError)):
            with pytest.raises(error):
                hasher.update(wrong)
            with pytest.raises(error):
                _sha256.advance((hasher,), (wrong,), always(1))
        with pytest.raises(TypeError):
            _sha256.advance((hashlib.sha256(),), (b"",), always(1))
        with pytest.raises(ValueError, match="numbers of digests and buffers differ"):
            _sha256.advance((hasher,), (), always(1))
        assert hasher.hexdigest() == hashlib.sha256(b"").hexdigest()


class TestChoice:
    def test_lanes_are_used_where_measured_to_be_faster(self) -> None:
        costs = lanes.Costs(one=1.0, by_width={4: 1.5, 8: 2.0, 16: 3.5}, hashlib_one=1.0)
        assert list(costs.widths) == [0, 1, 4, 4, 4, 8, 8, 8, 8, 1, 4, 4, 4, 16, 16, 16, 16]

    def test_lanes_without_a_gain_are_not_used(self) -> None:
        costs = lanes.Costs(one=1.0, by_width={4: 8.0}, hashlib_one=1.0)
        assert set(costs.widths[1:]) == {1}
        assert costs.worth_it(16)

    def test_hashlib_is_used_where_it_is_faster(self) -> None:
        costs = lanes.Costs(one=2.0, by_width={4: 3.0}, hashlib_one=1.0)
        assert [costs.worth_it(streams) for streams in (1, 2, 3, 4, 16)] == [False, False, True, True, True]

    def test_one_call_advances_streams_of_both_kinds(self) -> None:
        hashers = [lanes.new_sha256(streams=16), hashlib.sha256(), hashlib.sha1(usedforsecurity=False)]
        lanes.advance([(hasher, memoryview(CONTENT)) for hasher in hashers])
        assert [hasher.hexdigest() for hasher in hashers[:2]] == digests([CONTENT] * 2)
        assert hashers[2].hexdigest() == hashlib.sha1(CONTENT, usedforsecurity=False).hexdigest()
        assert [lanes.saved(hasher) is not None for hasher in hashers] == [True, False, False]


def test_without_the_extension_hashlib_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_sha256", None)
    hasher = lanes.new_sha256(streams=16)
    lanes.advance([(hasher, memoryview(CONTENT))])
    assert (hasher.hexdigest(), lanes.saved(hasher)) == (hashlib.sha256(CONTENT).hexdigest(), None)
    with pytest.raises(DigestUnavailable):
        lanes.restored(bytes(40), length=0)
