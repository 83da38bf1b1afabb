"""Metrics in both of Prometheus' formats."""

from __future__ import annotations

from fetcher.telemetry.exposition import Metric, Sample, exposition, labelled

METRICS = [
    Metric("loader_ready", "gauge", "Ready.", True),
    Metric("loader_read_bytes_total", "counter", "Read.", 1 << 60),
    Metric("loader_resident_bytes", "gauge", "Resident.", None),
    Metric("loader_checked_timestamp_seconds", "gauge", "Checked.", 1795252037.955),
]


def test_the_text_format_keeps_the_suffix_of_a_counter() -> None:
    assert exposition(METRICS).splitlines() == [
        "# HELP loader_ready Ready.",
        "# TYPE loader_ready gauge",
        "loader_ready 1",
        "# HELP loader_read_bytes_total Read.",
        "# TYPE loader_read_bytes_total counter",
        "loader_read_bytes_total 1152921504606846976",
        "# HELP loader_checked_timestamp_seconds Checked.",
        "# TYPE loader_checked_timestamp_seconds gauge",
        "loader_checked_timestamp_seconds 1795252037.955",
    ]


def test_openmetrics_drops_the_suffix_and_ends_with_eof() -> None:
    lines = exposition(METRICS, openmetrics=True).splitlines()
    assert "# TYPE loader_read_bytes counter" in lines
    assert "loader_read_bytes_total 1152921504606846976" in lines
    assert lines[-1] == "# EOF"


def test_every_line_ends_with_a_newline() -> None:
    assert exposition(METRICS).endswith("\n")
    assert exposition([]) == ""
    assert exposition([], openmetrics=True) == "# EOF\n"


RETRIES = Metric(
    "fetcher_retries_total", "counter", "Retries.", [Sample(2, {"reason": "Stalled"}), Sample(0, {"reason": "IOError"})]
)


class TestLabels:
    def test_a_family_is_described_once_before_its_samples(self) -> None:
        assert exposition([RETRIES]).splitlines() == [
            "# HELP fetcher_retries_total Retries.",
            "# TYPE fetcher_retries_total counter",
            'fetcher_retries_total{reason="Stalled"} 2',
            'fetcher_retries_total{reason="IOError"} 0',
        ]

    def test_a_family_without_samples_is_left_out(self) -> None:
        assert exposition([Metric("fetcher_result", "gauge", "Result.", [])]) == ""

    def test_a_label_can_be_added_to_all_metrics(self) -> None:
        lines = exposition(labelled([METRICS[0], RETRIES], {"artifact": "llama"})).splitlines()
        assert 'loader_ready{artifact="llama"} 1' in lines
        assert 'fetcher_retries_total{artifact="llama",reason="IOError"} 0' in lines
        assert labelled(METRICS, {}) == METRICS

    def test_special_characters_in_a_value_are_escaped(self) -> None:
        line = exposition(labelled(METRICS[:1], {"artifact": 'a"b\\c\nd'})).splitlines()[-1]
        assert line == r'loader_ready{artifact="a\"b\\c\nd"} 1'
