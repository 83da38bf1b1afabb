"""TLS by certificate files that are renewed while the server runs."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from fetcher.errors import ConfigurationError
from fetcher.serving import Caller, CertificateFiles, SharedSecret, Times, Verdict
from tests.serving.certificates import issued
from tests.serving.conftest import CONFIG, WEIGHTS, Cache, Start
from tests.serving.test_rights import SECRET


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> CertificateFiles:
    return issued(authority, tmp_path)


class TestFiles:
    def test_a_file_and_a_range_are_sent(
        self, cache: Cache, start: Start, files: CertificateFiles, authority_file: Path
    ) -> None:
        with start(certificates=files).peer(trusting=authority_file) as peer:
            assert peer.get(cache.path("model.safetensors")).body == WEIGHTS
            assert peer.get(cache.path("model.safetensors"), Range="bytes=7-1048600").body == WEIGHTS[7:1048601]
            assert peer.get(cache.path("config.json")).body == CONFIG

    def test_requests_that_are_sent_at_once_are_answered_in_turn(
        self, cache: Cache, start: Start, files: CertificateFiles, authority_file: Path
    ) -> None:
        with start(certificates=files).peer(trusting=authority_file) as peer:
            peer.send(f"GET {cache.path('config.json')} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 5)
            assert [peer.receive().body for _ in range(5)] == [CONFIG] * 5

    def test_what_needs_a_right_is_sent_to_who_has_it(
        self, cache: Cache, start: Start, files: CertificateFiles, authority_file: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text(SECRET)
        running = start(certificates=files, authorization=SharedSecret(tmp_path / "secret"))
        with running.peer(trusting=authority_file) as peer:
            assert peer.get(f"/v1/{cache.private}/have", Authorization=f"Bearer {SECRET}").status == 200


class TestStrangers:
    def test_a_client_without_tls_is_ended(self, start: Start, files: CertificateFiles) -> None:
        parts = urlsplit(start(certificates=files).server.where)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"HTTP" not in peer.recv(4096)

    def test_a_client_that_never_shakes_hands_is_ended(self, start: Start, files: CertificateFiles) -> None:
        parts = urlsplit(start(certificates=files, times=Times(first=0.2, tick=0.02)).server.where)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as peer:
            assert peer.recv(1) == b""

    @pytest.mark.parametrize("group", ["ffdhe2048", "ffdhe8192", "secp521r1"])
    def test_a_client_cannot_choose_a_way_that_takes_much_of_a_processor(
        self, start: Start, files: CertificateFiles, authority_file: Path, group: str
    ) -> None:
        parts = urlsplit(start(certificates=files).server.where)
        context = ssl.create_default_context(cafile=str(authority_file))
        context.set_ecdh_curve(group)
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as peer, pytest.raises(ssl.SSLError):
            context.wrap_socket(peer, server_hostname=parts.hostname)


class TestCertificatesOfClients:
    def test_who_shows_one_has_everything_and_others_nothing(
        self, cache: Cache, start: Start, files: CertificateFiles, authority_file: Path, tmp_path: Path
    ) -> None:
        mutual = CertificateFiles(files.chain, files.key, authority_file)
        own = issued(trustme.CA(), tmp_path, "stranger")
        certificates = {"stranger": (own.chain, own.key), "nobody": None}
        running = start(certificates=mutual)
        with running.peer(trusting=authority_file, certificate=(files.chain, files.key)) as peer:
            assert peer.get(f"/v1/{cache.private}/have").status == 200
        for certificate in certificates.values():
            # With TLS 1.3 a client learns of the refusal when it reads, and must learn why.
            with (
                pytest.raises(ssl.SSLError, match="ALERT"),
                running.peer(trusting=authority_file, certificate=certificate) as peer,
            ):
                peer.get(f"/v1/{cache.key}/have")

    def test_a_right_can_be_that_of_a_name_in_the_certificate(
        self, cache: Cache, start: Start, files: CertificateFiles, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        """A cluster's agent knows the node of its caller so."""

        def authorization(caller: Caller, key: str) -> Verdict:
            return "granted" if (caller.names, key) == (("node-1",), cache.private) else "denied"

        running = start(certificates=CertificateFiles(files.chain, files.key, authority_file), authorization=authorization)
        statuses = {}
        for name in ("node-1", "node-2"):
            own = issued(authority, tmp_path, name, names=(name,))
            with running.peer(trusting=authority_file, certificate=(own.chain, own.key)) as peer:
                statuses[name] = [peer.get(f"/v1/{key}/have").status for key in (cache.private, cache.key)]
        assert statuses == {"node-1": [200, 401], "node-2": [401, 401]}

    def test_a_name_in_a_certificate_that_nobody_verifies_says_nothing(
        self, cache: Cache, start: Start, files: CertificateFiles, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        callers = []

        def authorization(caller: Caller, _: str) -> Verdict:
            callers.append(caller)
            return "denied"

        own = issued(authority, tmp_path, "node-1", names=("node-1",))
        with start(certificates=files, authorization=authorization).peer(
            trusting=authority_file, certificate=(own.chain, own.key)
        ) as peer:
            assert peer.get(f"/v1/{cache.key}/have").status == 401
        assert callers == [Caller()]


class TestRenewal:
    def test_a_new_connection_gets_the_new_certificate_and_an_old_one_lives_on(
        self, cache: Cache, start: Start, files: CertificateFiles, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        running = start(certificates=files)
        with running.peer(trusting=authority_file) as old:
            issued(authority, tmp_path)
            with running.peer(trusting=authority_file) as new:
                assert new.certificate != old.certificate
                assert new.get(cache.path("config.json")).body == CONFIG
            assert old.get(cache.path("config.json")).body == CONFIG
        assert running.warnings == []

    def test_with_files_that_do_not_fit_the_former_certificate_stays(
        self, cache: Cache, start: Start, files: CertificateFiles, authority: trustme.CA, authority_file: Path, tmp_path: Path
    ) -> None:
        running = start(certificates=files)
        files.key.write_text("nothing")
        with running.peer(trusting=authority_file) as peer:
            assert peer.get(cache.path("config.json")).body == CONFIG
        (warning,) = running.warnings
        assert str(files.key) in warning
        assert "the former certificate is used" in warning
        issued(authority, tmp_path)
        with running.peer(trusting=authority_file) as peer:
            assert peer.get(cache.path("config.json")).body == CONFIG
        assert len(running.warnings) == 1

    @pytest.mark.parametrize("content", [None, "nothing"])
    def test_at_the_start_they_are_an_error(self, start: Start, files: CertificateFiles, content: str | None) -> None:
        files.key.unlink()
        if content is not None:
            files.key.write_text(content)
        with pytest.raises(ConfigurationError, match="cannot use the certificate files"):
            start(certificates=files)
