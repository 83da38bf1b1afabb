"""Metrics over HTTP, in the requested format, to well-behaved and other clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fetcher.errors import ConfigurationError
from fetcher.telemetry import endpoint
from fetcher.telemetry.endpoint import Answer, Site, serving
from fetcher.telemetry.exposition import Metric
from tests.lab.asking import asked
from tests.lab.waiting import wait_until

READ = Metric("loader_read_bytes_total", "counter", "Read.", 7)


@pytest.fixture
def metrics() -> list[Metric]:
    return [READ]


@pytest.fixture
def site(metrics: list[Metric]) -> Site:
    return Site(lambda: metrics, {"/ready": lambda: Answer(503, "not yet")})


@pytest.fixture
def where(site: Site) -> Iterator[str]:
    with serving("127.0.0.1", 0, site) as where:
        yield where


def test_metrics_are_served_in_the_requested_format(where: str) -> None:
    plain = asked(f"{where}/metrics")
    assert (plain.code, plain.kind.partition(";")[0]) == (200, "text/plain")
    assert "# TYPE loader_read_bytes_total counter\nloader_read_bytes_total 7\n" in plain.text
    open_metrics = asked(f"{where}/metrics?x=1", accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.kind.startswith("application/openmetrics-text")
    assert "# TYPE loader_read_bytes counter\nloader_read_bytes_total 7\n" in open_metrics.text
    assert open_metrics.text.endswith("\n# EOF\n")


def test_metrics_are_read_at_each_request(where: str, metrics: list[Metric]) -> None:
    metrics[:] = [Metric("loader_read_bytes_total", "counter", "Read.", 8)]
    assert "loader_read_bytes_total 8\n" in asked(f"{where}/metrics").text


def test_healthz_says_that_the_process_is_alive(where: str) -> None:
    assert asked(f"{where}/healthz").code == 200


def test_a_command_can_add_a_page(where: str) -> None:
    answer = asked(f"{where}/ready")
    assert (answer.code, answer.text) == (503, "not yet\n")


def test_an_unknown_path_is_answered_with_the_known_ones(where: str) -> None:
    answer = asked(f"{where}/etc/passwd")
    assert (answer.code, answer.text) == (404, "not found; try /metrics, /healthz, /ready\n")


def test_without_an_address_it_listens_on_all_addresses(site: Site) -> None:
    with serving(None, 0, site) as where:
        port = where.rpartition(":")[2]
        assert asked(f"http://127.0.0.1:{port}/healthz").code == 200


def test_a_port_in_use_is_a_configuration_error(where: str, site: Site) -> None:
    port = int(where.rpartition(":")[2])
    with pytest.raises(ConfigurationError, match=f"port {port}: address already in use"), serving("127.0.0.1", port, site):
        pass


def test_silent_clients_do_not_block_others_for_long(monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    monkeypatch.setattr(endpoint._Handler, "timeout", 0.1)  # noqa: SLF001
    with serving("127.0.0.1", 0, site) as where, ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2]))))

        def answered() -> bool:
            try:
                return asked(f"{where}/healthz").code == 200
            except OSError:
                return False

        wait_until(answered, "there is room again")
    assert threading.active_count() < 40
