"""`fetcher adopt`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from fetcher.testing.origin import Origin
from tests.cli.conftest import FILES, URI, last_line
from tests.lab.command import run_fetcher

WEIGHTS = "model.safetensors"
FOREIGN = "notes\x1b[2J.txt"


@pytest.fixture
def local(origin: Origin, tmp_path: Path) -> Path:
    """The directory of `hf download --local-dir`, with a foreign file."""
    snapshot_download("org/model", local_dir=tmp_path / "local", endpoint=origin.endpoint)
    (tmp_path / "local" / FOREIGN).write_text("mine")
    origin.clear_requests()
    return tmp_path / "local"


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


class TestSuccess:
    def test_the_path_is_the_only_line_on_stdout(self, local: Path, tmp_path: Path) -> None:
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        key = run_fetcher("key", URI).stdout.strip()
        assert done.stdout == f"{tmp_path}/cache/{key}\n"
        assert "ignored: notes\\x1b[2J.txt is no file of the artifact" in done.stderr

    def test_json_has_the_fields_of_a_fetch_and_the_ignored_files(self, local: Path, tmp_path: Path) -> None:
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache", "--json")
        fields = json.loads(done.stdout)
        fetched = json.loads(run_fetcher("fetch", URI, "--cache-dir", tmp_path / "cache", "--json").stdout)
        assert fields.keys() == {*fetched, "ignored"}
        assert (fields["verified"], fields["cached"], fields["bytes_fetched"]) == (True, False, 0)
        assert fields["ignored"] == [FOREIGN]
        assert (fetched["cached"], fetched["revision"]) == (True, fields["revision"])

    def test_every_option_has_a_variable(self, local: Path, tmp_path: Path) -> None:
        variables = {"FETCHER_URI": URI, "FETCHER_CACHE_DIR": str(tmp_path / "cache"), "FETCHER_OFFLINE": "1"}
        done = run_fetcher("adopt", local, "--json", "--exclude", "notes*", env=variables)
        assert json.loads(done.stdout)["verified"] is False

    def test_an_unverified_artifact_is_used_only_if_accepted(self, local: Path, origin: Origin, tmp_path: Path) -> None:
        root = ("--cache-dir", str(tmp_path / "cache"))
        (local / FOREIGN).unlink()
        assert run_fetcher("adopt", local, "--uri", URI, *root, "--offline").returncode == 0
        origin.stop()
        refused = run_fetcher("fetch", URI, *root, "--retry-for", "0")
        assert refused.returncode == 69
        assert "--accept-unverified uses it as it is" in refused.stderr
        assert run_fetcher("fetch", URI, *root, "--accept-unverified").returncode == 0


class TestDifferences:
    def test_end_in_65_with_a_line_for_each(self, local: Path, tmp_path: Path) -> None:
        damage(local / WEIGHTS)
        (local / "config.json").unlink()
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache")
        assert done.returncode == 65
        first, second = done.stdout.splitlines()
        assert first.split(maxsplit=1) == ["config.json", "is missing"]
        assert second.startswith(f"{WEIGHTS}  has sha256:")
        assert last_line(done.stderr).startswith("Differs: 2 of 2 files differ from the source's: config.json is missing; ")
        assert "--complete" in last_line(done.stderr)
        assert not list((tmp_path / "cache").glob("*/config.json"))

    def test_are_an_object_with_json(self, local: Path, tmp_path: Path) -> None:
        damage(local / WEIGHTS)
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache", "--json")
        assert done.returncode == 65
        document = json.loads(done.stdout)
        assert [each["path"] for each in document["differences"]] == [WEIGHTS]
        assert document["ignored"] == [FOREIGN]

    def test_are_fetched_with_complete(self, local: Path, tmp_path: Path) -> None:
        damage(local / WEIGHTS)
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache", "--complete", "--json")
        fields = json.loads(done.stdout)
        assert fields["bytes_fetched"] == len(FILES[WEIGHTS])
        assert (Path(fields["path"]) / WEIGHTS).read_bytes() == FILES[WEIGHTS]


class TestMistakes:
    def test_a_directory_without_records_needs_a_commit(self, tmp_path: Path, origin: Origin) -> None:
        (tmp_path / "usb").mkdir()
        done = run_fetcher("adopt", tmp_path / "usb", "--uri", URI, "--cache-dir", tmp_path / "cache")
        assert done.returncode == 64
        assert last_line(done.stderr).startswith("Usage: ")
        assert "give it with --revision" in last_line(done.stderr)
        assert not origin.requests

    def test_a_directory_that_does_not_exist_is_not_found(self, tmp_path: Path) -> None:
        assert run_fetcher("adopt", tmp_path / "nowhere", "--uri", URI).returncode == 66

    def test_a_claim_cannot_be_adopted(self, local: Path, tmp_path: Path) -> None:
        done = run_fetcher("adopt", local, "--uri", "pvc://claim/model", "--cache-dir", tmp_path / "cache")
        assert done.returncode == 64

    def test_an_unreachable_source_ends_in_69_and_names_the_way_out(self, local: Path, origin: Origin, tmp_path: Path) -> None:
        origin.stop()
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache", "--retry-for", "0")
        assert done.returncode == 69
        assert "pass --offline" in last_line(done.stderr)

    def test_a_hostile_name_is_refused_if_no_listing_says_what_is_wanted(self, local: Path, tmp_path: Path) -> None:
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache", "--offline")
        assert done.returncode == 65
        assert last_line(done.stderr).startswith("HostilePath: ")

    def test_a_link_is_named_without_its_control_characters(self, local: Path, tmp_path: Path) -> None:
        (local / "evil\x1b[2J").symlink_to("/etc/passwd")
        done = run_fetcher("adopt", local, "--uri", URI, "--cache-dir", tmp_path / "cache", "--offline")
        assert done.returncode == 64
        assert "'evil\\x1b[2J' is a link" in last_line(done.stderr)
