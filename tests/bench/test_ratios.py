"""The table of ratios: values, missing measurements, verdicts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.fetching import rows as fetching
from benchmarks.loading import rows as loading
from benchmarks.measuring import Cost
from benchmarks.ratios import (
    Row,
    Unmeasured,
    beyond,
    cpu_of_a_gigabyte,
    fastest,
    fastest_of,
    followed,
    gigabytes,
    longer,
    of,
    server,
    times,
)
from benchmarks.report import ratio_table
from benchmarks.rounds import Measured


def walls(*seconds: float | None) -> Measured:
    return Measured(costs=[None if one is None else Cost(one, cpu=1.0) for one in seconds])


RESULTS = {
    "four": {
        "slow": walls(9.0, 3.0, 3.0),
        "quick": walls(2.0, 2.0, 2.0),
        "broken": Measured(failure="exit 1"),
        "check": walls(1.0, 1.5, 2.0),
        "discarded": walls(None, None),
    }
}


def test_a_ratio_divides_medians_and_its_spread_divides_rounds() -> None:
    ratio = Row("", "", of("four", "slow"), of("four", "quick")).ratio(RESULTS)
    assert (ratio.median, ratio.least, ratio.most) == (1.5, 1.5, 4.5)


def test_the_fastest_peer_has_the_least_median_and_did_not_fail() -> None:
    assert fastest(RESULTS, "four", ("slow", "broken", "quick")) == "quick"


def test_a_following_check_is_added_round_by_round() -> None:
    side = followed(fastest_of("four", ("slow", "quick")), of("four", "check"))
    assert side(RESULTS) == [3.0, 3.5, 4.0]


def test_the_longer_of_two_is_chosen_round_by_round() -> None:
    assert longer(of("four", "slow"), of("four", "check"))(RESULTS) == [9.0, 3.0, 3.0]


def test_what_one_run_costs_beyond_another_is_their_difference_in_each_round() -> None:
    assert beyond(of("four", "slow"), of("four", "quick"))(RESULTS) == [7.0, 1.0, 1.0]


def test_a_rate_and_a_size_of_one_round_are_multiplied() -> None:
    assert times(of("four", "slow"), of("four", "check"))(RESULTS) == [9.0, 4.5, 6.0]


@pytest.mark.parametrize("figure", [server, gigabytes, cpu_of_a_gigabyte])
def test_a_run_without_a_server_has_none_of_its_figures(figure: Callable[[Cost], float]) -> None:
    with pytest.raises(Unmeasured):
        Row("", "", of("four", "slow", figure), of("four", "quick"), floor=0.0).ratio(RESULTS)


def test_a_row_without_a_bound_is_only_reported() -> None:
    row = Row("", "", of("four", "slow"), of("four", "quick"))
    assert (row.wanted(), row.verdict(5.0, flags=())) == ("-", "-")


@pytest.mark.parametrize(
    ("contender", "reason"),
    [("absent", "not run"), ("broken", "broken: exit 1"), ("discarded", "discarded: every round was discarded")],
)
def test_a_missing_measurement_has_a_reason_and_no_verdict(contender: str, reason: str) -> None:
    with pytest.raises(Unmeasured, match=reason):
        Row("", "", of("four", contender), of("four", "quick"), floor=0.0).ratio(RESULTS)


@pytest.mark.parametrize(
    ("floor", "ceiling", "value", "verdict"),
    [(1.2, None, 1.2, "pass"), (1.2, None, 1.19, "**fail**"), (None, 1.5, 1.5, "pass"), (None, 1.5, 1.51, "**fail**")],
)
def test_a_value_equal_to_its_floor_or_ceiling_passes(
    floor: float | None, ceiling: float | None, value: float, verdict: str
) -> None:
    assert Row("", "", of("", ""), of("", ""), floor=floor, ceiling=ceiling).verdict(value, flags=()) == verdict


@pytest.mark.parametrize("rows", [fetching.ROWS, loading.ROWS], ids=["fetch", "load"])
def test_the_report_has_every_row_even_if_nothing_was_run(rows: tuple[Row, ...]) -> None:
    table = ratio_table(rows, {}, trial=False, flags=()).splitlines()[2:]
    assert len(table) == len(rows)
    assert all(line.endswith("| not run | - |") or "no peer was run" in line for line in table)


def test_a_trial_has_no_verdict() -> None:
    results = {"verify": {"sha256sum": walls(9.0), "fetcher verify": walls(1.0)}}
    assert "| 9.00 (9.00-9.00) | **fail** |" in ratio_table(fetching.ROWS, results, trial=False, flags=())
    assert "| 9.00 (9.00-9.00) | trial |" in ratio_table(fetching.ROWS, results, trial=True, flags=())


def test_a_software_sha256_ratio_has_no_verdict_with_sha_extensions() -> None:
    results = {"verify": {"sha256sum": walls(9.0), "fetcher verify": walls(1.0)}}
    assert "| 9.00 (9.00-9.00) | SHA-NI |" in ratio_table(fetching.ROWS, results, trial=False, flags={"sha_ni"})


def test_a_ratio_for_sha_extensions_has_no_verdict_without_them() -> None:
    row = Row("", "", of("", ""), of("", ""), ceiling=1.1, hashing="extensions")
    assert row.verdict(1.0, flags={"avx2"}) == "no SHA-NI"
    assert row.verdict(1.0, flags={"avx2", "sha_ni"}) == row.verdict(1.0, flags={"sha2"}) == "pass"
