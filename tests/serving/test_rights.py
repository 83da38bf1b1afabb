"""Who may have what."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fetcher.errors import ConfigurationError
from fetcher.serving import Caller, SharedSecret, Verdict
from tests.serving.conftest import CONFIG, Cache, Start

SECRET = "correct-horse-battery"
OTHER = "staple-staple-staple"


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def replace(path: Path, text: str) -> None:
    """Replace a file as a Secret's volume does."""
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.rename(path)


class TestWithoutAuthorization:
    @pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "localhost.example"])  # noqa: S104 - it is refused
    def test_nothing_but_loopback_is_listened_to(self, start: Start, address: str) -> None:
        with pytest.raises(ConfigurationError, match="--auth-secret-file"):
            start(address=address)

    def test_loopback_is_served_by_its_ipv6_address_too(self, cache: Cache, start: Start) -> None:
        with start(address="::1").peer() as peer:
            assert peer.get(cache.path("config.json")).body == CONFIG

    def test_what_was_fetched_with_a_credential_is_not_there(self, cache: Cache, start: Start) -> None:
        listing = cache.offer.listing
        with start().peer() as peer:
            there = [peer.get(f"/v1/{cache.private}/{rest}") for rest in ("have", f"{listing}/config.json")]
            assert [each.status for each in there] == [404, 404]
            assert there[0].body == peer.get("/v1/0123456789abcdef/have").body


class TestASharedSecret:
    def test_who_shows_it_has_everything(self, cache: Cache, start: Start, secret_file: Path) -> None:
        with start(authorization=SharedSecret(secret_file)).peer() as peer:
            for key in (cache.key, cache.private):
                assert peer.get(f"/v1/{key}/have", Authorization=f"Bearer {SECRET}").status == 200

    @pytest.mark.parametrize(
        "field",
        [None, "", SECRET, f"Basic {SECRET}", "Bearer", "Bearer ", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", "Bearer \xff"],
    )
    def test_who_does_not_is_401_for_whatever_is_asked(
        self, cache: Cache, start: Start, secret_file: Path, field: str | None
    ) -> None:
        fields = {} if field is None else {"Authorization": field}
        with start(authorization=SharedSecret(secret_file)).peer() as peer:
            for target in (cache.path("config.json"), f"/v1/{cache.key}/have", "/v1/0123456789abcdef/have"):
                answer = peer.get(target, **fields)
                assert (answer.status, answer.fields["WWW-Authenticate"]) == (401, "Bearer")

    def test_it_is_read_again_when_it_changes(self, secret_file: Path) -> None:
        shared = SharedSecret(secret_file)
        replace(secret_file, f"{OTHER}\n")
        assert [shared(Caller(SECRET), "key"), shared(Caller(OTHER), "key")] == ["denied", "granted"]

    def test_two_are_valid_while_they_are_exchanged(self, secret_file: Path) -> None:
        replace(secret_file, f"{OTHER}\n\n{SECRET}\n")
        shared = SharedSecret(secret_file)
        assert [shared(Caller(SECRET), "key"), shared(Caller(OTHER), "key"), shared(Caller(""), "key")] == [
            "granted",
            "granted",
            "denied",
        ]

    @pytest.mark.parametrize("text", ["", "short\n", f"{SECRET}\nshort\n"])
    def test_one_that_can_be_guessed_is_refused_at_the_start_and_grants_nothing_later(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "secret"
        path.write_text(f"{SECRET}\n")
        shared = SharedSecret(path)
        replace(path, text)
        with pytest.raises(ConfigurationError, match="at least 16 characters"):
            SharedSecret(path)
        assert [shared(Caller(each), "key") for each in (SECRET, "", "short")] == ["denied"] * 3

    def test_a_missing_file_is_refused_at_the_start_and_grants_nothing_later(self, secret_file: Path) -> None:
        shared = SharedSecret(secret_file)
        secret_file.unlink()
        with pytest.raises(ConfigurationError, match="cannot read"):
            SharedSecret(secret_file)
        assert shared(Caller(SECRET), "key") == "denied"
        secret_file.write_text(f"{SECRET}\n")
        assert shared(Caller(SECRET), "key") == "granted"


class TestOtherAuthorizations:
    def test_the_right_to_one_artifact_is_no_right_to_another(self, cache: Cache, start: Start) -> None:
        """A cluster's agent decides by the artifacts that the caller's node is to have."""

        def authorization(caller: Caller, key: str) -> Verdict:
            return "granted" if (caller.token, key) == ("node-1", cache.key) else "denied"

        with start(authorization=authorization).peer() as peer:
            statuses = {
                key: peer.get(f"/v1/{key}/have", Authorization="Bearer node-1").status for key in (cache.key, cache.private)
            }
            assert statuses == {cache.key: 200, cache.private: 401}

    def test_who_cannot_be_judged_now_is_to_come_again(self, cache: Cache, start: Start) -> None:
        with start(authorization=lambda caller, key: "unavailable").peer() as peer:
            answer = peer.get(cache.path("config.json"))
            assert (answer.status, answer.fields["Retry-After"]) == (503, "1")

    def test_what_needs_a_right_does_not_cross_a_network_unencrypted(
        self, cache: Cache, start: Start, secret_file: Path
    ) -> None:
        running = start(authorization=SharedSecret(secret_file), address="0.0.0.0")  # noqa: S104 - this is the case
        with running.peer() as peer:
            fields = {"Authorization": f"Bearer {SECRET}"}
            assert peer.get(f"/v1/{cache.key}/have", **fields).status == 200
            assert peer.get(f"/v1/{cache.private}/have", **fields).status == 404


def test_a_secret_stays_out_of_memory_that_is_kept(secret_file: Path) -> None:
    kept = vars(SharedSecret(secret_file))
    assert SECRET not in repr(kept)
    assert hashlib.sha256(SECRET.encode()).digest() in kept["_secrets"]
    assert os.fspath(secret_file) in repr(kept)
