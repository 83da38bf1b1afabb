"""Numbers as Prometheus reads them, in both of its formats."""

from __future__ import annotations

from fetcher.telemetry.exposition import Metric, Sample, exposition, labelled

METRICS = [
    Metric("loader_ready", "gauge", "Ready.", True),
    Metric("loader_read_bytes_total", "counter", "Read.", 1 << 60),
    Metric("loader_resident_bytes", "gauge", "Resident.", None),
    Metric("loader_checked_timestamp_seconds", "gauge", "Checked.", 1795252037.955),
]


def test_the_text_format_names_a_counter_as_its_sample() -> None:
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


def test_openmetrics_names_its_family_and_has_an_end() -> None:
    lines = exposition(METRICS, openmetrics=True).splitlines()
    assert "# TYPE loader_read_bytes counter" in lines
    assert "loader_read_bytes_total 1152921504606846976" in lines
    assert lines[-1] == "# EOF"


def test_every_line_ends() -> None:
    assert exposition(METRICS).endswith("\n")
    assert exposition([]) == ""
    assert exposition([], openmetrics=True) == "# EOF\n"


RETRIES = Metric(
    "fetcher_retries_total", "counter", "Retries.", [Sample(2, {"reason": "Stalled"}), Sample(0, {"reason": "IOError"})]
)


class TestLabels:
    def test_a_family_is_named_once_before_its_numbers(self) -> None:
        assert exposition([RETRIES]).splitlines() == [
            "# HELP fetcher_retries_total Retries.",
            "# TYPE fetcher_retries_total counter",
            'fetcher_retries_total{reason="Stalled"} 2',
            'fetcher_retries_total{reason="IOError"} 0',
        ]

    def test_a_family_without_a_number_is_left_out(self) -> None:
        assert exposition([Metric("fetcher_result", "gauge", "Result.", [])]) == ""

    def test_one_may_be_added_to_all(self) -> None:
        lines = exposition(labelled([METRICS[0], RETRIES], {"artifact": "llama"})).splitlines()
        assert 'loader_ready{artifact="llama"} 1' in lines
        assert 'fetcher_retries_total{artifact="llama",reason="IOError"} 0' in lines
        assert labelled(METRICS, {}) == METRICS

    def test_what_would_end_a_value_is_escaped(self) -> None:
        line = exposition(labelled(METRICS[:1], {"artifact": 'a"b\\c\nd'})).splitlines()[-1]
        assert line == r'loader_ready{artifact="a\"b\\c\nd"} 1'
