"""Numbers as Prometheus reads them, in both of its formats."""

from __future__ import annotations

from fetcher.telemetry.exposition import Metric, exposition

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
