"""A listing of the Hub is read strictly or refused. Later headers must match it."""

from __future__ import annotations

from typing import Any

import pytest

from fetcher.artifact import Digest, RemoteFile
from fetcher.errors import BadResponse, ContentChanged
from fetcher.sources.hub import listed_file, refuse_other_content

OID, OTHER_OID, SHA256 = "a" * 40, "b" * 40, "c" * 64
PLAIN: dict[str, Any] = {"type": "file", "path": "config.json", "size": 700, "oid": OID}
LFS: dict[str, Any] = PLAIN | {"path": "model.safetensors", "size": 5_000, "lfs": {"oid": SHA256, "size": 5_000}}


class TestEntries:
    def test_a_plain_file_has_a_git_digest(self) -> None:
        file = RemoteFile("config.json", 700, (Digest("git-sha1", OID),), facts={"blob_id": OID})
        assert listed_file(PLAIN) == file
        assert listed_file(PLAIN | {"lfs": None}) == file

    def test_an_lfs_file_has_the_size_and_digest_of_its_content(self) -> None:
        file = listed_file(LFS | {"size": 134, "xetHash": "d" * 64})
        assert file == RemoteFile(
            "model.safetensors",
            5_000,
            (Digest("sha256", SHA256),),
            facts={"blob_id": OID, "xet_hash": "d" * 64, "lfs_size": "5000"},
        )

    def test_an_empty_file_is_listed(self) -> None:
        file = listed_file(PLAIN | {"size": 0})
        assert file is not None
        assert file.size == 0

    def test_a_directory_is_not_a_file(self) -> None:
        assert listed_file({"type": "directory", "path": "sub", "size": 0, "oid": OID}) is None

    def test_a_mirror_without_digests_is_accepted(self) -> None:
        assert listed_file({"path": "f", "size": 5}) == RemoteFile("f", 5)

    def test_hostile_paths_are_left_to_the_planner(self) -> None:
        file = listed_file(PLAIN | {"path": "../up"})
        assert file is not None
        assert file.path == "../up"

    @pytest.mark.parametrize(
        "entry",
        [
            None, "config.json", [], {}, {"type": "file"}, {"path": "f"}, {"path": "f", "size": 5, "lfs": {}},
            PLAIN | {"path": 5}, PLAIN | {"size": -1}, PLAIN | {"size": "700"}, PLAIN | {"size": None}, PLAIN | {"size": 1e3},
            PLAIN | {"oid": None}, PLAIN | {"oid": ""}, PLAIN | {"oid": OID.upper()}, PLAIN | {"oid": SHA256},
            LFS | {"lfs": {}}, LFS | {"lfs": {"oid": SHA256}}, LFS | {"lfs": {"size": 5}},
            LFS | {"lfs": {"oid": OID, "size": 5}}, LFS | {"lfs": {"oid": [SHA256], "size": 5}},
            LFS | {"lfs": {"oid": SHA256, "size": -5}}, LFS | {"lfs": {"oid": SHA256, "size": float("inf")}},
        ],
    )  # fmt: skip
    def test_an_entry_without_path_size_or_digest_is_refused(self, entry: Any) -> None:
        with pytest.raises(BadResponse):
            listed_file(entry)


class TestResolving:
    FILE = RemoteFile("model.safetensors", 5_000, (Digest("sha256", SHA256),))
    COMMIT = "0" * 40

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": "5000"},
            {"X-Linked-Etag": f'W/"{SHA256}"'},
            {"X-Linked-Etag": '"what a mirror calls it"', "X-Linked-Size": "many"},
            {"X-Linked-Size": "\N{SUPERSCRIPT TWO}"},
        ],
    )
    def test_matching_or_missing_headers_are_accepted(self, headers: dict[str, str]) -> None:
        refuse_other_content(headers, self.FILE, self.COMMIT)

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-Repo-Commit": "1" * 40},
            {"X-Linked-Etag": f'"{"d" * 64}"'},
            {"X-Linked-Etag": f'W/"{"d" * 64}"'},
            {"X-Linked-Etag": f'"{OTHER_OID}"'},
            {"X-Linked-Size": "4999"},
        ],
    )
    def test_changed_content_is_noticed_before_a_byte_is_requested(self, headers: dict[str, str]) -> None:
        with pytest.raises(ContentChanged) as caught:
            refuse_other_content(headers, self.FILE, self.COMMIT)
        assert caught.value.path == self.FILE.path

    def test_headers_cannot_contradict_a_file_without_a_digest(self) -> None:
        refuse_other_content({"X-Linked-Etag": f'"{SHA256}"'}, RemoteFile("f", None), None)
