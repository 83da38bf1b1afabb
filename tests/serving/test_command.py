"""`fetcher serve` as people start and stop it."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import trustme

from fetcher.serving.limits import PER_CONNECTION
from tests.lab.asking import asked
from tests.lab.command import end, listening_at, run_fetcher, started_fetcher
from tests.lab.metrics import samples, samples_in
from tests.lab.waiting import wait_until
from tests.serving.certificates import issued
from tests.serving.conftest import CONFIG, WEIGHTS, Cache
from tests.serving.peer import Peer
from tests.serving.test_rights import SECRET

Process = subprocess.Popen[str]
Begin = Callable[..., tuple[Process, str]]


@pytest.fixture
def begin(cache: Cache) -> Iterator[Begin]:
    """Start the command on any free port. Returns its process and its address."""
    with ExitStack() as stack:

        def begun(*words: str | Path) -> tuple[Process, str]:
            process = started_fetcher("serve", "--cache-dir", cache.root, "--listen", "127.0.0.1:0", *words)
            stack.callback(end, process)
            assert process.stdout is not None
            return process, process.stdout.readline().strip()

        yield begun


def refuses(where: str) -> bool:
    try:
        Peer(where).close()
    except ConnectionRefusedError:
        return True
    return False


class TestItsLife:
    def test_it_prints_its_address_serves_and_ends_with_0_when_it_is_told_to(self, cache: Cache, begin: Begin) -> None:
        process, where = begin()
        with Peer(where) as peer:
            assert peer.get(cache.path("config.json")).body == CONFIG
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            assert peer.ended()

    def test_a_signal_lets_a_peer_have_the_rest(self, cache: Cache, begin: Begin) -> None:
        process, where = begin("--limit-rate", "4Mi")
        with Peer(where) as peer:
            peer.send(f"GET {cache.path('model.safetensors')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert peer.read(1) == b"H"
            process.send_signal(signal.SIGTERM)
            received = b"H" + b"".join(iter(lambda: peer.read(65536), b""))
        assert received.endswith(WEIGHTS)
        assert process.wait(20) == 0

    @pytest.mark.parametrize("words", [("--drain-for", "0"), ()], ids=["no time to drain", "a second signal"])
    def test_cut_answers_are_the_signals_exit_code(self, cache: Cache, begin: Begin, words: tuple[str, ...]) -> None:
        process, where = begin("--limit-rate", "64Ki", *words)
        with Peer(where) as peer:
            peer.send(f"GET {cache.path('model.safetensors')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert peer.read(1) == b"H"
            process.send_signal(signal.SIGTERM)
            if not words:
                wait_until(lambda: refuses(where), "it drains")
                process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 128 + signal.SIGTERM

    def test_its_metrics_are_served_and_written(self, cache: Cache, begin: Begin, tmp_path: Path) -> None:
        process, where = begin("--metrics-port", "0", "--metrics-address", "127.0.0.1", "--metrics-file", tmp_path / "prom")
        with Peer(where) as peer:
            peer.get(cache.path("config.json"))
        address = f"{listening_at(process)}/metrics"
        wait_until(lambda: samples(asked(address).text)["fetcher_served_bytes_total"] == len(CONFIG), "the bytes are counted")
        wait_until(lambda: "fetcher_served_bytes_total" in samples_in(tmp_path / "prom"), "the file is written")


class TestMisuse:
    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (["--listen", "0.0.0.0:0"], 78, "0.0.0.0 is open to others: say who may fetch"),
            (["--listen", "8650"], 64, "write 127.0.0.1:8650"),
            (["--listen", "127.0.0.1:70000"], 64, "write 127.0.0.1:8650"),
            (["--listen", "192.0.2.1:0", "--auth-secret-file", "{secret}"], 78, "cannot listen on 192.0.2.1"),
            (["--auth-secret-file", "/nowhere"], 78, "cannot read /nowhere"),
            (["--auth-secret-file", "{secret}", "--token-review", "a", "--token-user", "b"], 64, "give one of them"),
            (["--token-review", "weightlift-peer"], 64, "--token-user"),
            (["--token-review", "a", "--token-user", "b"], 78, "works in a pod only"),
            (["--tls-cert", "/nowhere"], 78, "--tls-key"),
            (["--tls-client-ca", "/nowhere"], 78, "--tls-cert"),
            (["--tls-cert", "/nowhere", "--tls-key", "/nowhere"], 78, "cannot use the certificate files"),
            (["--max-uploads", "500", "--memory-limit", "16Mi"], 78, "lower --max-uploads"),
            (["--cache-dir", "/nowhere"], 66, "cannot serve /nowhere"),
        ],
    )
    def test_it_is_refused_with_what_to_do(
        self, cache: Cache, tmp_path: Path, words: list[str], code: int, message: str
    ) -> None:
        (tmp_path / "secret").write_text(SECRET)
        given = [word.format(secret=tmp_path / "secret") for word in words]
        done = run_fetcher("serve", "--cache-dir", cache.root, "--listen", "127.0.0.1:0", *given)
        assert done.returncode == code
        assert message in done.stderr.splitlines()[-1]
        assert SECRET not in done.stderr
        assert done.stdout == ""


class TestAFetch:
    def test_a_served_file_is_fetched_with_tls_and_the_secret_and_verified(
        self, cache: Cache, begin: Begin, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text(SECRET)
        files = issued(authority, tmp_path)
        words = ["--tls-cert", files.chain, "--tls-key", files.key, "--auth-secret-file", tmp_path / "secret"]
        _, where = begin(*words)
        uri = f"{where}{cache.path('model.safetensors')}#sha256={hashlib.sha256(WEIGHTS).hexdigest()}"
        env = {"SSL_CERT_FILE": str(authority_file), "127.0.0.1-headers": json.dumps({"Authorization": f"Bearer {SECRET}"})}
        done = run_fetcher("fetch", uri, "--cache-dir", tmp_path / "other", "--json", "--max-concurrency", "4", env=env)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (Path(result["path"]) / "model.safetensors").read_bytes() == WEIGHTS
        assert result["verified"] is True
        refused = run_fetcher("fetch", uri, "--cache-dir", tmp_path / "none", env={"SSL_CERT_FILE": str(authority_file)})
        assert refused.returncode == 77


class TestMemory:
    CONNECTIONS = 200

    @pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
    def test_an_idle_connection_takes_64_kib_at_most(
        self, cache: Cache, begin: Begin, authority: trustme.CA, authority_file: Path, tmp_path: Path, encrypted: bool
    ) -> None:
        files = issued(authority, tmp_path)
        process, where = begin(*(["--tls-cert", files.chain, "--tls-key", files.key] if encrypted else []))
        with ExitStack() as stack:
            peers = [stack.enter_context(Peer(where, trusting=authority_file)) for _ in range(20)]
            for peer in peers:
                peer.get(cache.path("config.json"))
            before = psutil.Process(process.pid).memory_info().rss
            more = [stack.enter_context(Peer(where, trusting=authority_file)) for _ in range(self.CONNECTIONS)]
            for peer in more:
                assert peer.get(cache.path("config.json")).body == CONFIG
            grown = psutil.Process(process.pid).memory_info().rss - before
        print(f"{grown / self.CONNECTIONS / 1024:.1f} KiB a connection, {before / 2**20:.0f} MiB before")
        assert grown < self.CONNECTIONS * PER_CONNECTION
