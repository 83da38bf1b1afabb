"""The metrics of `fetcher fetch`: for Prometheus while it runs, and in a file after it has ended in any way."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fetcher.cli.metrics import all_metrics
from fetcher.testing.effects import FlipBit, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.cli.conftest import FILES, SLOW, SLOW_WEIGHTS, URI, MiB, last_line
from tests.lab.asking import asked
from tests.lab.command import listening_at, run_fetcher
from tests.lab.fixtures import StartFetcher
from tests.lab.metrics import samples, samples_in
from tests.lab.waiting import wait_until

TOTAL = sum(map(len, FILES.values()))
COMPLETED = 'fetcher_result{reason="Completed",retryable="false"}'
TEXTFILE = "m.prom"


@pytest.fixture
def place(tmp_path: Path) -> tuple[str | Path, ...]:
    return ("--cache-dir", tmp_path / "cache", "--metrics-file", tmp_path / TEXTFILE)


class TestFile:
    def test_the_file_stays_with_counts_and_outcome(
        self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...]
    ) -> None:
        done = run_fetcher("fetch", URI, *place)
        assert done.returncode == 0, done.stderr
        seen = samples_in(tmp_path / TEXTFILE)
        assert seen[COMPLETED] == seen['fetcher_phase{phase="done"}'] == 1
        assert (seen["fetcher_expected_bytes"], seen["fetcher_received_bytes_total"]) == (TOTAL, TOTAL)
        assert (seen["fetcher_verified_bytes"], seen["fetcher_hashed_bytes_total"]) == (TOTAL, TOTAL)
        assert (seen["fetcher_files"], seen["fetcher_verified_files"], seen["fetcher_reused_bytes"]) == (2, 2, 0)
        assert (seen["fetcher_cached"], seen["fetcher_stale"], seen["fetcher_connections"]) == (0, 0, 0)

    def test_a_hit_is_marked_as_cached(self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...]) -> None:
        for _ in range(2):
            run_fetcher("fetch", URI, *place)
        seen = samples_in(tmp_path / TEXTFILE)
        assert (seen[COMPLETED], seen["fetcher_cached"]) == (1, 1)
        assert (seen["fetcher_reused_bytes"], seen["fetcher_received_bytes_total"]) == (TOTAL, 0)

    def test_a_failure_is_recorded_with_its_reason_and_whether_to_retry(
        self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...]
    ) -> None:
        origin.faults.add(Fault(FlipBit(7), origin="cdn"))
        assert run_fetcher("fetch", URI, *place).returncode == 65
        seen = samples_in(tmp_path / TEXTFILE)
        assert seen['fetcher_result{reason="DigestMismatch",retryable="false"}'] == 1
        assert (seen["fetcher_mismatches_total"], seen['fetcher_phase{phase="failed"}']) == (2, 1)
        assert seen["fetcher_discarded_bytes_total"] > 0

    def test_retries_are_counted_by_their_reason(self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...]) -> None:
        origin.faults.add(Fault(Status(500)))
        assert run_fetcher("fetch", URI, *place, "--retry-for", "1").returncode == 69
        seen = samples_in(tmp_path / TEXTFILE)
        assert seen['fetcher_retries_total{reason="Unreachable"}'] >= 1
        assert seen['fetcher_result{reason="Unreachable",retryable="true"}'] == 1

    def test_it_is_written_during_the_fetch_and_after_a_signal(
        self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...], start_fetcher: StartFetcher
    ) -> None:
        origin.faults.add(Fault(Stall(), origin="hub"))
        fetching = start_fetcher("fetch", SLOW, *place)
        wait_until(lambda: bool(samples_in(tmp_path / TEXTFILE)), "it is written")
        assert not [name for name in samples_in(tmp_path / TEXTFILE) if name.startswith("fetcher_result")]
        fetching.send_signal(signal.SIGTERM)
        assert fetching.wait(timeout=10) == 128 + signal.SIGTERM
        assert samples_in(tmp_path / TEXTFILE)['fetcher_result{reason="Interrupted",retryable="true"}'] == 1

    def test_a_file_that_cannot_be_written_is_a_warning(self, origin: Origin, tmp_path: Path) -> None:
        nowhere = tmp_path / "nowhere" / TEXTFILE
        done = run_fetcher("fetch", URI, "--cache-dir", tmp_path, "--metrics-file", nowhere, "--progress", "log")
        assert done.returncode == 0
        assert done.stderr.count(f"warning: IOError: cannot write the metrics {nowhere}") == 1

    def test_every_series_has_the_requested_label(self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...]) -> None:
        run_fetcher("fetch", URI, *place, env={"FETCHER_METRICS_LABEL": "artifact=llama,node=a"})
        assert all('{artifact="llama",node="a"' in series for series in samples_in(tmp_path / TEXTFILE))


class TestPort:
    def test_the_numbers_grow_during_the_fetch(self, origin: Origin, tmp_path: Path, start_fetcher: StartFetcher) -> None:
        origin.throttle(total=4 * MiB)
        words = ("--metrics-port", "0", "--metrics-address", "127.0.0.1", "--progress", "log", "--max-concurrency", "2")
        where = listening_at(start_fetcher("fetch", SLOW, "--cache-dir", tmp_path, *words))

        def received() -> float:
            return samples(asked(f"{where}/metrics").text)["fetcher_received_bytes_total"]

        wait_until(lambda: received() > 0, "something is received")
        first = received()
        wait_until(lambda: received() > first, "more is received")
        seen = samples(asked(f"{where}/metrics").text)
        assert seen['fetcher_phase{phase="fetching"}'] == 1
        assert 0 < seen["fetcher_received_bytes_total"] < seen["fetcher_expected_bytes"] == len(SLOW_WEIGHTS)
        assert 1 <= seen["fetcher_connections"] <= 2

    def test_a_port_in_use_ends_the_command_and_the_file_records_it(
        self, origin: Origin, tmp_path: Path, place: tuple[str | Path, ...], start_fetcher: StartFetcher
    ) -> None:
        origin.faults.add(Fault(Stall(), origin="hub"))
        words = ("--metrics-port", "0", "--metrics-address", "127.0.0.1", "--progress", "log")
        where = listening_at(start_fetcher("fetch", SLOW, "--cache-dir", tmp_path / "cache", *words))
        port = where.rpartition(":")[2]
        done = run_fetcher("fetch", URI, *place, "--metrics-address", "127.0.0.1", "--metrics-port", port)
        assert done.returncode == 78
        assert last_line(done.stderr).startswith(f"Configuration: cannot listen on 127.0.0.1, port {port}")
        assert samples_in(tmp_path / TEXTFILE)['fetcher_result{reason="Configuration",retryable="false"}'] == 1


def test_no_metric_contains_a_uri_a_path_or_a_secret(origin: Origin, tmp_path: Path, place: tuple[str | Path, ...]) -> None:
    address = origin.add_file("/model.safetensors", FILES["model.safetensors"]).replace("://", "://user:pa55word@")
    assert run_fetcher("fetch", f"{address}?X-Amz-Signature=s3cret", *place).returncode == 0
    text = (tmp_path / TEXTFILE).read_text()
    assert not [word for word in ("pa55word", "s3cret", "127.0.0.1", "safetensors", str(tmp_path)) if word in text]
    assert {name.partition("{")[0] for name in samples(text)} == {metric.name for metric in all_metrics()}


@pytest.mark.usefixtures("origin")
def test_without_metrics_their_modules_are_not_imported(tmp_path: Path) -> None:
    probe = "import sys; from fetcher.cli import main; main(); print(*sys.modules)"
    words = ("fetch", URI, "--cache-dir", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "fetcher.telemetry" in modules
    assert not [name for name in modules if name.startswith(("fetcher.command.publication", "fetcher.telemetry.exposition"))]
    assert not {"fetcher.telemetry.account", "fetcher.telemetry.endpoint", "fetcher.cli.metrics"} & set(modules)
