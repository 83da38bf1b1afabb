"""A fetch whose mirror is a `fetcher serve` with TLS: what `--mirror-ca`, `--mirror-cert` and `--mirror-key` say of whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from fetcher.artifact import ORIGIN
from fetcher.serving import CertificateFiles
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.lab.command import end, run_fetcher, started_fetcher
from tests.serving.certificates import issued

MiB = 1024 * 1024
FILES = {"config.json": b"{}", "model.safetensors": random_bytes("served by TLS", 2 * MiB)}
TOTAL = sum(map(len, FILES.values()))
URI = "hf://org/model"
YESTERDAY, LONG_AGO = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)


class Node:
    """A Hub, and a node with its model that serves it with certificates of `authority`."""

    def __init__(self, hub: Origin, place: Path, stack: ExitStack) -> None:
        self.hub, self.place = hub, place
        self.authority = trustme.CA()
        self.ca = place / "authority.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self._stack = stack
        self.own = issued(self.authority, place, "client", names=("a-client",))
        self.fetch(place / "root")

    def served(self, files: CertificateFiles, *words: str | Path) -> str:
        """Start a server. Returns its base URL."""
        tls = ("--tls-cert", files.chain, "--tls-key", files.key)
        served = started_fetcher("serve", "--cache-dir", self.place / "root", "--listen", "127.0.0.1:0", *tls, *words)
        self._stack.callback(end, served)
        assert served.stdout is not None
        return served.stdout.readline().strip()

    def fetch(self, root: Path, *words: str | Path, **environ: str | Path) -> tuple[dict[str, Any], str]:
        """Returns the result, and what was logged."""
        env = {"HF_ENDPOINT": self.hub.endpoint} | {name: str(value) for name, value in environ.items()}
        done = run_fetcher("fetch", URI, "--cache-dir", root, "--json", "--progress", "log", *words, env=env)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert {name: (Path(result["path"]) / name).read_bytes() for name in FILES} == FILES
        return result, done.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Origin(lfs_threshold=MiB) as hub, ExitStack() as stack:
        hub.add_repo("org/model", FILES)
        yield Node(hub, tmp_path_factory.mktemp("node"), stack)


@pytest.fixture(scope="module")
def mirror(node: Node) -> str:
    """A server that everybody may ask by TLS."""
    return node.served(issued(node.authority, node.place))


@pytest.fixture(scope="module")
def mutual(node: Node) -> str:
    """A server for those with a certificate of its authority."""
    return node.served(issued(node.authority, node.place), "--tls-client-ca", node.ca)


class TestTrusted:
    def test_the_authority_that_is_named_vouches_for_the_mirror(self, node: Node, mirror: str, tmp_path: Path) -> None:
        result, _ = node.fetch(tmp_path, "--mirror", mirror, "--mirror-ca", node.ca)
        assert result["bytes_from"] == {mirror: TOTAL}

    def test_who_shows_its_certificate_is_served(self, node: Node, mutual: str, tmp_path: Path) -> None:
        shown = ("--mirror-cert", node.own.chain, "--mirror-key", node.own.key)
        result, _ = node.fetch(tmp_path, "--mirror", mutual, "--mirror-ca", node.ca, *shown)
        assert result["bytes_from"] == {mutual: TOTAL}

    def test_all_addresses_of_a_name_have_its_certificate(self, node: Node, tmp_path: Path) -> None:
        """A node cannot know the address of a pod before there is one."""
        mirror = node.served(issued(node.authority, tmp_path, names=("localhost",)))
        named = f"dns+https://localhost:{mirror.rpartition(':')[2]}"
        result, _ = node.fetch(tmp_path / "root", "--mirror", named, "--mirror-ca", node.ca)
        assert result["bytes_from"] == {mirror: TOTAL}

    def test_variables_say_the_same(self, node: Node, mutual: str, tmp_path: Path) -> None:
        environ = {"CA": node.ca, "CERT": node.own.chain, "KEY": node.own.key}
        named = {f"FETCHER_MIRROR_{name}": path for name, path in environ.items()}
        result, _ = node.fetch(tmp_path, FETCHER_MIRRORS=mutual, **named)
        assert result["bytes_from"] == {mutual: TOTAL}


class TestNotTrusted:
    """The origin brings what no trusted mirror does, and one line says why."""

    def check(self, node: Node, root: Path, mirror: str, *words: str | Path) -> str:
        """Fetch. Returns the only line about the mirror."""
        result, logged = node.fetch(root, "--mirror", mirror, *words)
        assert result["bytes_from"] == {ORIGIN: TOTAL}
        (line,) = [each for each in logged.splitlines() if "Mirror" in each or "peers are asked" in each]
        return line

    def test_a_mirror_of_another_authority(self, node: Node, mirror: str, tmp_path: Path) -> None:
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        line = self.check(node, tmp_path / "root", mirror, "--mirror-ca", other)
        assert "unable to get local issuer" in line

    def test_a_mirror_of_no_authority_of_the_system(self, node: Node, mirror: str, tmp_path: Path) -> None:
        line = self.check(node, tmp_path, mirror)
        assert "--mirror-ca" in line

    def test_a_certificate_that_has_expired(self, node: Node, tmp_path: Path) -> None:
        files = issued(node.authority, tmp_path, not_before=LONG_AGO, not_after=YESTERDAY)
        line = self.check(node, tmp_path / "root", node.served(files), "--mirror-ca", node.ca)
        assert "certificate has expired" in line

    def test_a_certificate_for_another_name(self, node: Node, tmp_path: Path) -> None:
        files = issued(node.authority, tmp_path, names=("10.0.0.7", "elsewhere.example"))
        line = self.check(node, tmp_path / "root", node.served(files), "--mirror-ca", node.ca)
        assert "IP address mismatch" in line

    def test_a_name_whose_server_has_only_a_certificate_for_its_address(self, node: Node, mirror: str, tmp_path: Path) -> None:
        named = f"dns+https://localhost:{mirror.rpartition(':')[2]}"
        line = self.check(node, tmp_path, named, "--mirror-ca", node.ca)
        assert "Hostname mismatch" in line

    def test_a_mirror_that_wants_a_certificate_and_is_shown_none(self, node: Node, mutual: str, tmp_path: Path) -> None:
        line = self.check(node, tmp_path, mutual, "--mirror-ca", node.ca)
        assert "--mirror-cert" in line

    def test_a_mirror_that_is_shown_the_certificate_of_a_stranger(self, node: Node, mutual: str, tmp_path: Path) -> None:
        strange = issued(trustme.CA(), tmp_path, "stranger")
        shown = ("--mirror-cert", strange.chain, "--mirror-key", strange.key)
        line = self.check(node, tmp_path / "root", mutual, "--mirror-ca", node.ca, *shown)
        assert "--mirror-cert" in line

    def test_a_key_that_does_not_fit(self, node: Node, mutual: str, tmp_path: Path) -> None:
        other = issued(node.authority, tmp_path, "other")
        shown = ("--mirror-cert", node.own.chain, "--mirror-key", other.key)
        line = self.check(node, tmp_path / "root", mutual, "--mirror-ca", node.ca, *shown)
        assert str(other.key) in line

    @pytest.mark.parametrize("content", [None, "nothing"])
    def test_files_that_are_none(self, node: Node, mutual: str, tmp_path: Path, content: str | None) -> None:
        missing = tmp_path / "missing.pem"
        if content is not None:
            missing.write_text(content)
        line = self.check(node, tmp_path / "root", mutual, "--mirror-ca", missing)
        assert str(missing) in line


def test_a_certificate_without_its_key_ends_the_command(node: Node, tmp_path: Path) -> None:
    words = ("--mirror", "https://127.0.0.1:9", "--mirror-cert", node.own.chain)
    done = run_fetcher("fetch", URI, "--cache-dir", tmp_path, *words, env={"HF_ENDPOINT": node.hub.endpoint})
    assert done.returncode == 78
    assert "--mirror-cert and --mirror-key belong together" in done.stderr
