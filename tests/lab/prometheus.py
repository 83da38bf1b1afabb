"""Prometheus, its promtool and node_exporter, as Debian ships them: who reads metrics in the end judges them here."""

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
    """`promtool` to its end, whatever its exit code; `text` is its stdin."""
    command = [program("promtool", package="prometheus"), *map(str, words)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one. `where` has no slash at its end."""

    where: str

    def results(self, query: str) -> list[dict[str, Any]]:
        """What an instant query gives. Raises AssertionError where Prometheus does not understand it."""
        answer = json.loads(asked(f"{self.where}/api/v1/query?{urllib.parse.urlencode({'query': query})}").text)
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, query: str) -> float | None:
        """Of the only series there is; None while there is none."""
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
    (workspace / "prometheus.yml").write_text(json.dumps(configuration))  # YAML, too
    words = ("--config.file", workspace / "prometheus.yml", "--storage.tsdb.path", workspace / "data")
    with _listening(executable, *words, "--web.listen-address", "127.0.0.1:0", log=workspace / "log") as where:
        wait_until(lambda: asked(f"{where}/-/ready").code == 200, "Prometheus is ready")
        yield Prometheus(where)


@contextmanager
def running_node_exporter(directory: Path, log: Path) -> Iterator[str]:
    """Collect the textfiles of `directory`, and nothing else; gives the address."""
    executable = program("prometheus-node-exporter", package="prometheus-node-exporter")
    words = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={directory}")
    with _listening(executable, *words, "--web.listen-address=127.0.0.1:0", log=log) as where:
        yield where


@contextmanager
def _listening(executable: str, *words: str | Path, log: Path) -> Iterator[str]:
    """Start a server that chooses its port itself; what it says is printed at the end, which pytest shows with a failure."""
    with log.open("w") as output, subprocess.Popen([executable, *map(str, words)], stdout=output, stderr=output) as process:
        try:
            ports: list[int] = []

            def listens() -> bool:
                assert process.poll() is None, log.read_text()
                with suppress(psutil.AccessDenied):
                    found = psutil.Process(process.pid).net_connections("tcp")
                    ports[:] = [each.laddr.port for each in found if each.status == psutil.CONN_LISTEN]
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
