"""The metrics of the commands, collected by the real Prometheus and node_exporter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fetcher.telemetry.exposition import TEXT
from fetcher.testing.checkpoint import make_checkpoint
from fetcher.testing.origin import Origin
from tests.cli.conftest import SLOW, SLOW_WEIGHTS, URI, MiB
from tests.lab.asking import asked
from tests.lab.command import listening_at, run_fetcher, run_loader
from tests.lab.fixtures import StartFetcher
from tests.lab.metrics import samples
from tests.lab.prometheus import promtool, running_node_exporter, running_prometheus
from tests.lab.waiting import wait_until
from tests.observability.dashboard import expressions


def accepted(text: str) -> bool:
    """Return whether promtool accepts the text; it also checks names and kinds."""
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return True


class TestPromtool:
    def test_accepts_a_finished_fetch(self, origin: Origin, tmp_path: Path) -> None:
        file = tmp_path / "m.prom"
        run_fetcher("fetch", URI, "--cache-dir", tmp_path / "cache", "--metrics-file", file, "--metrics-label", "artifact=m")
        assert 'fetcher_result{artifact="m",reason="Completed"' in file.read_text()
        assert accepted(file.read_text())

    def test_accepts_a_finished_warming_and_finished_copies(self, tmp_path: Path) -> None:
        model, file = make_checkpoint(tmp_path / "model", shards=2, shard_size=4 * MiB), tmp_path / "m.prom"
        size = sum(path.stat().st_size for path in model.iterdir())
        copy: list[str | Path] = ["copy", model, tmp_path / "copy"]
        for words, reused in ((["warm", model], size), (copy, 0), (copy, size)):
            assert run_loader(*words, "--metrics-file", file).returncode == 0
            seen = samples(file.read_text())
            assert seen['loader_result{reason="Completed",retryable="false"}'] == seen['loader_phase{phase="done"}'] == 1
            assert (seen["loader_expected_bytes"], seen["loader_reused_bytes"]) == (size, reused)
            assert seen["loader_loaded_bytes_total"] == size - reused
            assert accepted(file.read_text())

    def test_accepts_a_failure(self, tmp_path: Path) -> None:
        file = tmp_path / "m.prom"
        assert run_loader("warm", tmp_path / "nothing", "--metrics-file", file).returncode == 66
        assert 'loader_result{reason="NotFound",retryable="false"} 1' in file.read_text()
        assert accepted(file.read_text())


@contextmanager
def served_as_text(directory: Path) -> Iterator[str]:
    """Serve the files of a directory over HTTP, in the text format only."""

    class Handler(SimpleHTTPRequestHandler):
        extensions_map = {"": TEXT}  # noqa: RUF012 - as its base has it

        def log_message(self, format: str, *arguments: object) -> None:
            """Print no access log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_prometheus_scrapes_a_fetch_in_both_formats(origin: Origin, tmp_path: Path, start_fetcher: StartFetcher) -> None:
    """Prometheus requests OpenMetrics from the port; the file has the text format."""
    origin.throttle(total=1 * MiB)
    (tmp_path / "textfiles").mkdir()
    words = ("--metrics-port", "0", "--metrics-address", "127.0.0.1", "--metrics-file", tmp_path / "textfiles" / "metrics")
    fetching = start_fetcher("fetch", SLOW, "--cache-dir", tmp_path / "cache", *words, "--progress", "log")
    where = listening_at(fetching)
    with (
        served_as_text(tmp_path / "textfiles") as plain,
        running_prometheus(tmp_path / "prometheus", {"port": where, "file": plain}) as prometheus,
    ):
        wait_until(lambda: bool(prometheus.results('rate(fetcher_received_bytes_total{job="port"}[10s]) > 0')), "it moves")
        wait_until(lambda: bool(prometheus.results('fetcher_received_bytes_total{job="file"} > 0')), "the file is read, too")
        for job in ("port", "file"):
            assert prometheus.value(f'up{{job="{job}"}}') == 1
            assert prometheus.value(f'fetcher_expected_bytes{{job="{job}"}}') == len(SLOW_WEIGHTS)
            assert prometheus.value(f'fetcher_phase{{job="{job}"}} == 1') == 1
        of_a_fetch = [query for query in expressions() if "fetcher_" in query and "fetcher_served_" not in query]
        shown = [query for query in of_a_fetch if prometheus.results(query)]
        assert [query for query in of_a_fetch if query not in shown] == [
            query for query in of_a_fetch if any(word in query for word in ("_result", "_cached", "_stale"))
        ], "all panels but those on the end have something to show"


class TestNodeExporter:
    def test_distinguishes_several_commands_of_a_node_by_label(self, origin: Origin, tmp_path: Path) -> None:
        directory = tmp_path / "textfiles"
        directory.mkdir()
        for name in ("one", "two"):
            words = ("--metrics-file", directory / f"{name}.prom", "--metrics-label", f"artifact={name}")
            assert run_fetcher("fetch", URI, "--cache-dir", tmp_path / name, *words).returncode == 0
        with running_node_exporter(directory, tmp_path / "log") as where:
            answer = asked(f"{where}/metrics")
            seen = samples(answer.text)
        assert answer.code == 200
        assert seen["node_textfile_scrape_error"] == 0
        for name in ("one", "two"):
            assert seen[f'fetcher_result{{artifact="{name}",reason="Completed",retryable="false"}}'] == 1
