"""`fetcher verify`: what it finds, what it repairs, and how it says so."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.cli.verify_metrics import all_verify_metrics
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.origin import Origin
from tests.cli.conftest import FILES, URI, MiB, last_line
from tests.lab.command import run_fetcher
from tests.lab.metrics import samples_in

WEIGHTS = "model.safetensors"
KEY = ArtifactRef(URI).key


@pytest.fixture
def cache(origin: Origin, tmp_path: Path) -> Path:
    """A cache root with the small model."""
    done = run_fetcher("fetch", URI, "--cache-dir", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    origin.clear_requests()
    return tmp_path / "cache"


def damage(path: Path) -> None:
    """Change one byte of a published file, as a disk does."""
    with path.open("r+b") as stream:
        stream.seek(1000)
        (byte,) = stream.read(1)
        stream.seek(1000)
        stream.write(bytes([byte ^ 1]))


def reports(stdout: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(stdout)
    return result


def sums_of(directory: Path, files: dict[str, bytes]) -> Path:
    """A list of sha256sum."""
    path = directory / "sums"
    path.write_text("".join(f"{sha256(content).hexdigest()}  {name}\n" for name, content in files.items()))
    return path


class TestRepair:
    @pytest.mark.parametrize("what", ["everything", "key", "uri", "directory"])
    def test_it_repairs_what_is_damaged_and_succeeds(self, cache: Path, what: str) -> None:
        damage(cache / KEY / WEIGHTS)
        words: dict[str, list[str | Path]] = {"everything": [], "key": [KEY], "uri": [URI], "directory": [cache / KEY]}
        done = run_fetcher("verify", *words[what], "--cache-dir", cache, "--repair")
        assert done.returncode == 0, done.stderr
        assert f"{cache / KEY / WEIGHTS}: repaired" in done.stdout.splitlines()
        assert (cache / KEY / WEIGHTS).read_bytes() == FILES[WEIGHTS]
        assert run_fetcher("verify", "--full", "--cache-dir", cache).returncode == 0

    def test_json_lists_the_repaired_files(self, cache: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        done = run_fetcher("verify", "--cache-dir", cache, "--repair", "--json")
        (report,) = reports(done.stdout)
        assert (report["ok"], report["repaired"], report["bad"], report["fetched"]) == (True, [WEIGHTS], [], 3 * MiB)

    def test_without_the_flag_nothing_changes_and_the_flag_is_named(self, origin: Origin, cache: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        damaged = (cache / KEY / WEIGHTS).read_bytes()
        done = run_fetcher("verify", "--cache-dir", cache)
        assert done.returncode == 65
        assert "--repair" in last_line(done.stderr)
        assert (cache / KEY / WEIGHTS).read_bytes() == damaged
        assert not origin.requests

    def test_an_intact_cache_asks_no_source(self, origin: Origin, cache: Path) -> None:
        origin.stop()
        assert run_fetcher("verify", "--cache-dir", cache, "--repair").returncode == 0

    def test_without_its_source_it_ends_as_a_fetch_does(self, origin: Origin, cache: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        damaged = (cache / KEY / WEIGHTS).read_bytes()
        origin.stop()
        done = run_fetcher("verify", "--cache-dir", cache, "--repair", "--retry-for", "0.5")
        assert done.returncode == 69
        assert last_line(done.stderr).startswith("Unreachable:")
        assert (cache / KEY / WEIGHTS).read_bytes() == damaged

    def test_a_token_is_used_as_a_fetch_uses_it(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/private", {WEIGHTS: random_bytes("private", 2 * MiB)}, private=True, readers=["hf_secret"])
        words = ("--cache-dir", tmp_path / "cache")
        path = Path(run_fetcher("fetch", "hf://org/private", *words, env={"HF_TOKEN": "hf_secret"}).stdout.strip())
        damage(path / WEIGHTS)
        refused = run_fetcher("verify", *words, "--repair")
        assert refused.returncode == 77, refused.stderr
        done = run_fetcher("verify", *words, "--repair", env={"HF_TOKEN": "hf_secret"})
        assert done.returncode == 0, done.stderr
        assert "hf_secret" not in done.stdout + done.stderr

    def test_a_destination_needs_neither_cache_nor_home(self, origin: Origin, tmp_path: Path) -> None:
        run_fetcher("fetch", URI, "--dest", tmp_path / "model")
        damage(tmp_path / "model" / WEIGHTS)
        done = run_fetcher("verify", tmp_path / "model", "--repair", env={"HOME": ""})
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "model" / WEIGHTS).read_bytes() == FILES[WEIGHTS]

    def test_another_artifact_with_the_same_inode_is_named(self, origin: Origin, cache: Path) -> None:
        origin.add_repo("org/fork", FILES)
        fork = Path(run_fetcher("fetch", "hf://org/fork", "--cache-dir", cache).stdout.strip())
        (fork / WEIGHTS).unlink()
        os.link(cache / KEY / WEIGHTS, fork / WEIGHTS)
        damage(cache / KEY / WEIGHTS)
        done = run_fetcher("verify", KEY, "--cache-dir", cache, "--repair")
        assert done.returncode == 65
        assert f"fetcher verify {fork} --repair" in last_line(done.stderr)
        assert run_fetcher("verify", fork, "--repair").returncode == 0
        assert run_fetcher("verify", "--cache-dir", cache).returncode == 0

    def test_all_artifacts_of_a_root_are_repaired_at_once(self, origin: Origin, cache: Path) -> None:
        origin.add_repo("org/fork", FILES)
        fork = Path(run_fetcher("fetch", "hf://org/fork", "--cache-dir", cache).stdout.strip())
        (fork / WEIGHTS).unlink()
        os.link(cache / KEY / WEIGHTS, fork / WEIGHTS)
        damage(cache / KEY / WEIGHTS)
        done = run_fetcher("verify", "--cache-dir", cache, "--repair", "--json")
        assert done.returncode == 0, done.stderr
        assert [each["repaired"] for each in reports(done.stdout)] == [[WEIGHTS], [WEIGHTS]]


class TestSample:
    def test_at_least_one_chunk_is_compared(self, cache: Path) -> None:
        (report,) = reports(run_fetcher("verify", "--cache-dir", cache, "--sample", "0.001", "--json").stdout)
        assert (report["ok"], report["chunks"], report["sample"]) == (True, 1, 0.001)

    def test_a_percent_sign_changes_nothing(self, cache: Path) -> None:
        (report,) = reports(run_fetcher("verify", "--cache-dir", cache, "--sample", "5%", "--json").stdout)
        assert report["sample"] == 5.0
        assert report["bytes_compared"] in map(len, FILES.values())

    def test_a_sample_of_everything_finds_the_damage(self, cache: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        done = run_fetcher("verify", "--cache-dir", cache, "--sample", "100", "--json")
        (report,) = reports(done.stdout)
        assert (done.returncode, report["chunks"], report["bytes_compared"]) == (65, 2, sum(map(len, FILES.values())))

    def test_sizes_are_compared_outside_the_sample_too(self, cache: Path) -> None:
        for name in FILES:
            os.truncate(cache / KEY / name, 1)
        (report,) = reports(run_fetcher("verify", "--cache-dir", cache, "--sample", "1", "--json").stdout)
        assert [bad[0] for bad in report["bad"]] == sorted(FILES)

    def test_the_line_says_how_much_was_compared(self, cache: Path) -> None:
        (line,) = run_fetcher("verify", "--cache-dir", cache, "--sample", "100").stdout.splitlines()
        assert line.endswith("a random sample of 2 chunks (3.0 MiB) matches")

    @pytest.mark.parametrize("text", ["0", "101", "-1", "nan", "x"])
    def test_a_percentage_is_above_0_and_up_to_100(self, tmp_path: Path, text: str) -> None:
        assert run_fetcher("verify", "--cache-dir", tmp_path, f"--sample={text}").returncode == 64

    def test_digests_need_every_byte(self, tmp_path: Path) -> None:
        assert run_fetcher("verify", "--cache-dir", tmp_path, "--sample", "1", "--full").returncode == 64

    @pytest.mark.parametrize(("words", "least"), [([], 0.5), (["--full"], 1.0)])
    def test_reading_is_no_faster_than_asked(self, cache: Path, words: list[str], least: float) -> None:
        (report,) = reports(run_fetcher("verify", "--cache-dir", cache, "--max-rate", "6Mi", "--json", *words).stdout)
        assert report["seconds"] >= least

    def test_a_damaged_file_of_the_sample_is_repaired_as_a_whole(self, cache: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        assert run_fetcher("verify", "--cache-dir", cache, "--sample", "100", "--repair").returncode == 0
        assert (cache / KEY / WEIGHTS).read_bytes() == FILES[WEIGHTS]


class TestExpectFile:
    def test_right_digests_match(self, cache: Path, tmp_path: Path) -> None:
        sums = sums_of(tmp_path, FILES)
        done = run_fetcher("verify", KEY, "--cache-dir", cache, "--expect-file", sums)
        assert done.returncode == 0, done.stderr

    def test_an_intact_file_with_another_digest_is_bad_and_no_repair_changes_that(self, cache: Path, tmp_path: Path) -> None:
        sums = sums_of(tmp_path, FILES | {"config.json": b"other"})
        for words in ([], ["--repair"]):
            done = run_fetcher("verify", KEY, "--cache-dir", cache, "--expect-file", sums, *words)
            assert done.returncode == 65
            assert last_line(done.stderr).startswith("DigestMismatch: config.json has sha256:")
        assert (cache / KEY / "config.json").read_bytes() == FILES["config.json"]

    def test_a_name_that_the_artifact_lacks_is_not_found(self, cache: Path, tmp_path: Path) -> None:
        sums = sums_of(tmp_path, FILES | {"more.bin": b""})
        assert run_fetcher("verify", KEY, "--cache-dir", cache, "--expect-file", sums).returncode == 66

    def test_a_list_belongs_to_one_artifact(self, cache: Path, tmp_path: Path) -> None:
        sums = sums_of(tmp_path, FILES)
        assert run_fetcher("verify", "--cache-dir", cache, "--expect-file", sums).returncode == 64

    def test_a_malformed_list_is_a_configuration_error(self, cache: Path, tmp_path: Path) -> None:
        (tmp_path / "sums").write_text("nonsense")
        done = run_fetcher("verify", KEY, "--cache-dir", cache, "--expect-file", tmp_path / "sums")
        assert done.returncode == 78
        assert "sums, line 1" in last_line(done.stderr)

    def test_a_fetch_and_a_plan_take_it_too(self, origin: Origin, tmp_path: Path) -> None:
        sums = sums_of(tmp_path, FILES)
        words = (URI, "--cache-dir", tmp_path / "new", "--expect-file", sums, "--require-digests")
        for command in ("plan", "fetch"):
            done = run_fetcher(command, *words)
            assert done.returncode == 0, done.stderr


class TestMetrics:
    def test_the_file_holds_what_was_compared_and_found(self, cache: Path, tmp_path: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        words = ("--cache-dir", cache, "--metrics-file", tmp_path / "m.prom")
        assert run_fetcher("verify", *words).returncode == 65
        seen = samples_in(tmp_path / "m.prom")
        assert (seen["fetcher_artifacts"], seen["fetcher_bad_files"], seen["fetcher_repaired_files_total"]) == (1, 1, 0)
        assert (seen["fetcher_compared_chunks_total"], seen["fetcher_compared_bytes_total"]) == (2, 3 * MiB + 2)
        assert seen['fetcher_result{reason="DigestMismatch",retryable="false"}'] == 1

    def test_a_repair_counts(self, cache: Path, tmp_path: Path) -> None:
        damage(cache / KEY / WEIGHTS)
        words = ("--cache-dir", cache, "--metrics-file", tmp_path / "m.prom", "--repair")
        assert run_fetcher("verify", *words).returncode == 0
        seen = samples_in(tmp_path / "m.prom")
        assert (seen["fetcher_bad_files"], seen["fetcher_repaired_files_total"]) == (0, 1)
        assert seen["fetcher_received_bytes_total"] == 3 * MiB
        assert seen['fetcher_result{reason="Completed",retryable="false"}'] == 1

    def test_every_metric_of_the_reference_is_published(self, cache: Path, tmp_path: Path) -> None:
        run_fetcher("verify", "--cache-dir", cache, "--metrics-file", tmp_path / "m.prom")
        seen = {name.partition("{")[0] for name in samples_in(tmp_path / "m.prom")}
        assert seen == {metric.name for metric in all_verify_metrics()}


class TestWhatCannotBeRepaired:
    def test_a_claim_is_never_written(self, tmp_path: Path) -> None:
        done = run_fetcher("verify", "pvc://claim/model", "--repair", "--cache-dir", tmp_path)
        assert done.returncode == 64
        assert "never written" in last_line(done.stderr)

    def test_a_directory_without_a_manifest_is_named(self, tmp_path: Path) -> None:
        done = run_fetcher("verify", tmp_path, "--repair", "--cache-dir", tmp_path)
        assert done.returncode == 66
        assert f"{tmp_path} has no manifest" in last_line(done.stderr)

    def test_a_source_that_is_gone_is_an_error_of_the_source(self, origin: Origin, tmp_path: Path) -> None:
        address = origin.add_file("/model.bin", random_bytes("file", 2 * MiB))
        path = Path(run_fetcher("fetch", address, "--cache-dir", tmp_path).stdout.strip())
        damage(path / "model.bin")
        origin.remove_file("/model.bin")
        assert run_fetcher("verify", "--cache-dir", tmp_path, "--repair").returncode == 66

    def test_one_lost_source_does_not_keep_other_artifacts_damaged(self, origin: Origin, cache: Path) -> None:
        origin.add_repo("org/fork", FILES)
        fork = Path(run_fetcher("fetch", "hf://org/fork", "--cache-dir", cache).stdout.strip())
        gone = origin.add_file("/model.bin", random_bytes("file", 2 * MiB))
        lost = Path(run_fetcher("fetch", gone, "--cache-dir", cache).stdout.strip())
        origin.remove_file("/model.bin")
        for path in (cache / KEY / WEIGHTS, fork / WEIGHTS, lost / "model.bin"):
            damage(path)
        done = run_fetcher("verify", "--cache-dir", cache, "--repair", "--json")
        assert done.returncode == 66
        assert {each["path"]: each["ok"] for each in reports(done.stdout)} == {
            str(cache / KEY): True,
            str(fork): True,
            str(lost): False,
        }

    def test_other_content_at_the_source_is_said(self, origin: Origin, tmp_path: Path) -> None:
        address = origin.add_file("/model.bin", random_bytes("file", 2 * MiB))
        path = Path(run_fetcher("fetch", address, "--cache-dir", tmp_path).stdout.strip())
        damage(path / "model.bin")
        damaged = (path / "model.bin").read_bytes()
        origin.add_file("/model.bin", random_bytes("other", 2 * MiB))
        done = run_fetcher("verify", "--cache-dir", tmp_path, "--repair")
        assert done.returncode == 65
        assert last_line(done.stderr).startswith("ContentChanged: model.bin")
        assert (path / "model.bin").read_bytes() == damaged
