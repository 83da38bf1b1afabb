"""Debian's Prometheus, promtool and node_exporter, which check our metrics."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.lab.asking import asked
from tests.lab.availability import program
from tests.lab.waiting import wait_until


def promtool(*words: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `promtool` and return the result, whatever its exit code; `text` is its stdin."""
    command = [program("promtool", package="prometheus"), *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus. `where` is its address, without a final slash."""

    where: str

    def results(self, query: str) -> list[dict[str, Any]]:
        """Return the results of an instant query. Raises AssertionError if Prometheus rejects it."""
        answer = json.loads(asked(f"{self.where}/api/v1/query?{urllib.parse.urlencode({'query': query})}").text)
        assert answer["status"] == "success", answer
        series: list[dict[str, Any]] = answer["data"]["result"]
        return series

    def value(self, query: str) -> float | None:
        """Return the value of the only series, or None if there is no series."""
        results = self.results(query)
        assert len(results) <= 1, results
        return float(results[0]["value"][1]) if results else None


@contextmanager
def running_prometheus(workspace: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrape `targets` (job → address such as `http://127.0.0.1:9090`) every second until the block ends."""
    executable = program("prometheus", package="prometheus")
    workspace.mkdir()
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [where.removeprefix("http://")]}]} for job, where in targets.items()
    ]
    configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (workspace / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is valid YAML
    words = ("--config.file", workspace / "prometheus.yml", "--storage.tsdb.path", workspace / "data")
    with _listening(executable, *words, "--web.listen-address", "127.0.0.1:0", log=workspace / "log") as where:
        wait_until(lambda: asked(f"{where}/-/ready").code == 200, "Prometheus is ready")
        yield Prometheus(where)


@contextmanager
def running_node_exporter(directory: Path, log: Path) -> Iterator[str]:
    """Collect only the textfiles of `directory`. Yields the address."""
    executable = program("prometheus-node-exporter", package="prometheus-node-exporter")
    words = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={directory}")
    with _listening(executable, *words, "--web.listen-address=127.0.0.1:0", log=log) as where:
        yield where


@contextmanager
def _listening(executable: str, *words: str | Path, log: Path) -> Iterator[str]:
    """Start a server that chooses its port, and yield its address. Prints its log at the end, for failed tests."""
    with log.open("w") as output, subprocess.Popen([executable, *map(str, words)], stdout=output, stderr=output) as process:
        try:
            ports: list[int] = []

            def listens() -> bool:
                assert process.poll() is None, log.read_text()
                with suppress(psutil.AccessDenied):
                    connections = psutil.Process(process.pid).net_connections("tcp")
                    ports[:] = [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]
                return bool(ports)

            wait_until(listens, f"{executable} listens")
            yield f"http://127.0.0.1:{ports[0]}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            print(f"{executable}:\n{log.read_text()}")
