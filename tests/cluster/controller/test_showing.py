"""What `kubectl get modelcaches` shows of a size and of a revision."""

from __future__ import annotations

import pytest

from cluster.amounts import bytes_of
from cluster.controller.showing import abbreviated, in_short, shown
from cluster.resources.model import Found


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1536, "1.5Ki"),
        (1024**2 - 1, "1Mi"),
        (16_320_875_725, "15.2Gi"),
        (140_000_000_000, "130.4Gi"),
        (1_400_000_000_000, "1.3Ti"),
        (2**61, "2097152Ti"),
    ],
)
def test_a_size_is_a_quantity_of_kubernetes(count: int, text: str) -> None:
    assert in_short(count) == text
    assert bytes_of(text) == pytest.approx(count, rel=0.05)


@pytest.mark.parametrize(
    ("revision", "text"),
    [
        pytest.param("6a3346a91a3b285d49a573c96761b229f0a7a335", "6a3346a", id="a commit"),
        pytest.param(f"sha256:{'0123456789abcdef' * 4}", "sha256:0123456789ab", id="a digest of a registry"),
        pytest.param("0123456789abcdef" * 4, "0123456789ab", id="a digest"),
        pytest.param("v1.0", "v1.0", id="a word"),
        pytest.param('"5f3a-62b1c0d4e8f00" 1000', '"5f3a-62b1c0', id="a validator of a web server"),
        pytest.param("", None, id="none"),
        pytest.param(None, None, id="a source without revisions"),
    ],
)
def test_a_revision_is_shown_by_its_beginning(revision: str | None, text: str | None) -> None:
    assert abbreviated(revision) == text


def test_what_is_not_known_is_not_shown() -> None:
    assert shown(None) == (None, None)
    assert shown(Found("0" * 16, 0, 0)) == (None, None)
