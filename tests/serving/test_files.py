"""Files and ranges over HTTP/1.1."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.cache.offering import Offers
from fetcher.manifest import RELATIVE_PATH, Manifest
from tests.lab.command import run_fetcher
from tests.serving.conftest import CONFIG, WEIGHTS, Cache
from tests.serving.peer import Peer


class TestWholeFiles:
    def test_a_file_of_a_listing_is_sent(self, cache: Cache, peer: Peer) -> None:
        answer = peer.get(cache.path("model.safetensors"))
        assert (answer.status, answer.body) == (200, WEIGHTS)
        assert answer.fields["Accept-Ranges"] == "bytes"

    def test_many_requests_use_one_connection(self, cache: Cache, peer: Peer) -> None:
        assert [peer.get(cache.path("config.json")).body for _ in range(20)] == [CONFIG] * 20

    def test_requests_that_are_sent_at_once_are_answered_in_turn(self, cache: Cache, peer: Peer) -> None:
        peer.send(f"GET {cache.path('config.json')} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 5)
        assert [peer.receive().body for _ in range(5)] == [CONFIG] * 5

    def test_an_empty_file_is_sent(self, cache: Cache, peer: Peer) -> None:
        assert peer.get(cache.path("empty")).status == 200

    def test_a_name_is_escaped_in_an_address(self, cache: Cache, peer: Peer) -> None:
        assert peer.get(cache.path(quote("sub dir/näme#?%41"))).body == b"name"

    def test_head_tells_the_size_and_sends_nothing(self, cache: Cache, peer: Peer) -> None:
        answer = peer.get(cache.path("model.safetensors"), "HEAD")
        assert (answer.status, answer.fields["Content-Length"], answer.body) == (200, str(len(WEIGHTS)), b"")
        assert peer.get(cache.path("config.json")).body == CONFIG

    def test_an_etag_names_the_content_and_not_the_place(self, cache: Cache, peer: Peer) -> None:
        tags = {name: peer.get(cache.path(name)).fields["ETag"] for name in ("model.safetensors", "config.json")}
        assert len(set(tags.values())) == 2
        assert tags["config.json"] == peer.get(cache.path("config.json")).fields["ETag"]

    def test_a_client_of_http_1_0_gets_the_file_and_the_end(self, cache: Cache, peer: Peer) -> None:
        peer.send(f"GET {cache.path('config.json')} HTTP/1.0\r\n\r\n".encode())
        assert peer.receive().body == CONFIG
        assert peer.ended()


class TestRanges:
    SIZE = len(WEIGHTS)

    @pytest.mark.parametrize(
        ("field", "first", "stop"),
        [
            ("bytes=0-0", 0, 1),
            ("bytes=1-1048576", 1, 1048577),
            (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
            ("bytes=-7", SIZE - 7, SIZE),
            ("bytes=-99999999", 0, SIZE),
            (f"bytes=5-{SIZE * 2}", 5, SIZE),
            ("BYTES=0-9", 0, 10),
        ],
    )
    def test_a_range_is_sent(self, cache: Cache, peer: Peer, field: str, first: int, stop: int) -> None:
        answer = peer.get(cache.path("model.safetensors"), Range=field)
        assert (answer.status, answer.body) == (206, WEIGHTS[first:stop])
        assert answer.fields["Content-Range"] == f"bytes {first}-{stop - 1}/{self.SIZE}"

    @pytest.mark.parametrize("field", [f"bytes={SIZE}-", "bytes=-0", "bytes=0-1,3-4", "bytes=99999999999-"])
    def test_a_range_that_is_not_there_or_several_are_416(self, cache: Cache, peer: Peer, field: str) -> None:
        answer = peer.get(cache.path("model.safetensors"), Range=field)
        assert (answer.status, answer.fields["Content-Range"]) == (416, f"bytes */{self.SIZE}")
        assert peer.get(cache.path("config.json")).body == CONFIG

    @pytest.mark.parametrize("field", ["lines=0-1", "bytes=5-3", "bytes=a-b", "bytes=", "bytes=-", "bytes=1-2-3"])
    def test_a_range_that_is_none_is_ignored(self, cache: Cache, peer: Peer, field: str) -> None:
        assert peer.get(cache.path("config.json"), Range=field).status == 200

    def test_a_range_of_another_version_is_the_whole_file(self, cache: Cache, peer: Peer) -> None:
        tag = peer.get(cache.path("config.json")).fields["ETag"]
        assert peer.get(cache.path("config.json"), Range="bytes=0-0", If_Range=tag).status == 206
        assert peer.get(cache.path("config.json"), Range="bytes=0-0", If_Range='"other"').status == 200


class TestWhatIsNotServed:
    @pytest.mark.parametrize(
        "target",
        [
            "/",
            "/v1",
            "/v1/{key}",
            "/v1/{key}/",
            "/v1/{key}/{listing}",
            "/v1/{key}/{listing}/",
            "/v1/{key}/{listing}/config.json/",
            "/v1/{key}/{listing}//config.json",
            "/v1/{key}/{listing}/./config.json",
            "/v1/{key}/{listing}/sub%20dir/../config.json",
            "/v1/{key}/{listing}/.fetcher/manifest.json",
            "/v1/{key}/{listing}/..%2f..%2f..%2fetc%2fpasswd",
            "/v1/{key}/{listing}/../../../../etc/passwd",
            "/v1/{key}/{listing}/%2e%2e/%2e%2e/secret",
            "/v1/{key}/{listing}/..%5c..%5csecret",
            "/v1/{key}/{listing}//etc/passwd",
            "/v1/{key}/{listing}/config.json%00",
            "/v1/{key}/{listing}/%ff%fe",
            "/v1/../{key}/{listing}/config.json",
            "/v1/.fetcher/{listing}/usage",
            "/v1/.fetcher/have",
            "/v1/../have",
            "/v1/%2e%2e/have",
            "/v1/%00/have",
            "/v1/0123456789abcdef/have",
            "/v1/{key}/0000/config.json",
            "/v1/{key}/" + "0" * 64 + "/config.json",
            "/v2/{key}/{listing}/config.json",
        ],
    )
    def test_anything_else_is_404(self, cache: Cache, peer: Peer, target: str) -> None:
        (cache.root.parent / "secret").write_text("secret")
        answer = peer.get(target.format(key=cache.key, listing=cache.offer.listing))
        assert answer.status == 404
        assert b"secret" not in answer.body

    def test_a_file_beside_the_listed_ones_is_404(self, cache: Cache, peer: Peer) -> None:
        (cache.directory / "stranger").write_text("mine")
        assert peer.get(cache.path("stranger")).status == 404

    def test_no_link_is_followed_in_the_place_of_a_file_or_a_directory(self, cache: Cache, peer: Peer, tmp_path: Path) -> None:
        file, directory = cache.path("config.json"), cache.path(quote("sub dir/näme#?%41"))
        secret = tmp_path / "secret"
        secret.mkdir()
        (secret / "näme#?%41").write_bytes(b"evil")
        (secret / "two").write_bytes(b"no")
        (cache.directory / "config.json").unlink()
        (cache.directory / "config.json").symlink_to(secret / "two")
        (cache.directory / "sub dir").rename(tmp_path / "aside")
        (cache.directory / "sub dir").symlink_to(secret)
        assert [peer.get(target).status for target in (file, directory)] == [404, 404]

    def test_an_artifact_behind_a_link_is_404(self, cache: Cache, peer: Peer, tmp_path: Path) -> None:
        target = cache.path("config.json")
        cache.directory.rename(tmp_path / "elsewhere")
        cache.directory.symlink_to(tmp_path / "elsewhere")
        assert peer.get(target).status == 404

    def test_a_fifo_in_the_place_of_a_file_does_not_block(self, cache: Cache, peer: Peer) -> None:
        target = cache.path("config.json")
        (cache.directory / "config.json").unlink()
        os.mkfifo(cache.directory / "config.json")
        assert peer.get(target).status == 404

    def test_a_file_of_another_size_is_404(self, cache: Cache, peer: Peer) -> None:
        (cache.directory / "config.json").write_bytes(b"{}\n")
        assert peer.get(cache.path("config.json")).status == 404

    def test_a_manifest_that_names_a_path_outside_offers_nothing(self, cache: Cache, peer: Peer) -> None:
        target, record = cache.path("config.json"), cache.directory / RELATIVE_PATH
        record.write_bytes(record.read_bytes().replace(b'"config.json"', b'"../../secret"'))
        assert peer.get(target).status == 404

    def test_an_artifact_that_no_source_confirmed_is_404(self, cache: Cache, peer: Peer) -> None:
        target, record = cache.path("config.json"), cache.directory / RELATIVE_PATH
        record.write_bytes(record.read_bytes().replace(b'"unconfirmed": false', b'"unconfirmed": true'))
        assert peer.get(target).status == 404

    def test_an_artifact_in_the_place_of_another_is_404(self, cache: Cache, peer: Peer) -> None:
        target = cache.path("config.json")
        cache.directory.rename(cache.root / "aside")
        (cache.root / cache.private).rename(cache.directory)
        assert peer.get(target).status == 404


class TestReplacement:
    def test_a_file_that_is_replaced_after_the_listing_was_read_is_not_sent(self, cache: Cache) -> None:
        """The new file has the same name and size, so only the manifest tells."""
        offers = Offers(cache.root)
        old = offers.find(cache.key)
        assert old is not None
        manifest = Manifest.read(cache.directory / RELATIVE_PATH)
        assert manifest is not None
        (cache.directory / RELATIVE_PATH).unlink()
        (cache.directory / RELATIVE_PATH).write_bytes(manifest.to_bytes())
        assert offers.open(old, "config.json") is None
        assert offers.find(cache.key) is not None

    def test_the_new_listing_is_served_and_the_old_one_is_404(self, cache: Cache, peer: Peer, tmp_path: Path) -> None:
        model = tmp_path / "changing"
        model.mkdir()
        other = Cache(cache.root, ArtifactRef(str(model)).key, "")
        targets = []
        for content in (b"old", b"new"):
            (model / "config.json").write_bytes(content)
            assert run_fetcher("fetch", model, "--cache-dir", cache.root, "--refresh", "on-change").returncode == 0
            targets.append(other.path("config.json"))
            assert peer.get(targets[-1]).body == content
        assert peer.get(targets[0]).status == 404

    def test_the_map_tells_the_listing_that_is_here(self, cache: Cache, peer: Peer) -> None:
        document = json.loads(peer.get(f"/v1/{cache.key}/have").body)
        assert (document["listing"], document["complete"]) == (cache.offer.listing, True)
