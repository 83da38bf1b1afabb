"""Lines, however the network cuts them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.client.asking import split
from cluster.client.errors import TooLarge


async def in_blocks(blocks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


def cut(text: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[begin:end] for begin, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    rest=st.binary(max_size=10).map(lambda line: line.replace(b"\n", b"")),
    places=st.lists(st.integers(min_value=0), max_size=10),
)
async def test_lines_are_the_same_wherever_their_text_is_cut(lines: list[bytes], rest: bytes, places: list[int]) -> None:
    text = b"".join(line + b"\n" for line in lines) + rest

    assert [line async for line in split(in_blocks(cut(text, places)), "watch", 100)] == lines


@given(size=st.integers(min_value=101, max_value=1000), places=st.lists(st.integers(min_value=0), max_size=10))
async def test_a_line_without_an_end_is_not_gathered(size: int, places: list[int]) -> None:
    with pytest.raises(TooLarge):
        [line async for line in split(in_blocks(cut(b"x" * size, places)), "watch", 100)]
