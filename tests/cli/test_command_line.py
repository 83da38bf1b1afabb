"""Each command as its users see it: stdout, stderr and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.cli.parser import COMMANDS
from fetcher.testing.effects import FlipBit, Status, rate_limited
from fetcher.testing.faults import Fault
from fetcher.testing.listings import extra_files
from fetcher.testing.origin import Origin
from tests.cli.conftest import FILES, URI, last_line
from tests.lab.command import run_fetcher

FIELDS = [
    "path",
    "cache_key",
    "uri",
    "revision",
    "files",
    "bytes",
    "bytes_fetched",
    "bytes_reused",
    "seconds",
    "verified",
    "cached",
    "stale",
    "use_recorded",
    "verified_by",
    "bytes_from",
]


class TestFetch:
    def test_the_path_is_the_only_line_on_stdout(self, origin: Origin, tmp_path: Path) -> None:
        done = run_fetcher("fetch", URI, "--cache-dir", tmp_path)
        path = tmp_path / ArtifactRef(URI).key
        assert (done.returncode, done.stdout) == (0, f"{path}\n")
        assert (path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
        assert "every digest verified" in done.stderr

    def test_json_is_one_object_with_the_documented_fields(self, origin: Origin, tmp_path: Path) -> None:
        done = run_fetcher("fetch", URI, "--cache-dir", tmp_path, "--json")
        (line,) = done.stdout.splitlines()
        result = json.loads(line)
        assert list(result) == FIELDS
        assert (result["verified"], result["cached"], result["bytes"]) == (True, False, sum(map(len, FILES.values())))

    def test_every_flag_has_a_variable_and_the_flag_takes_precedence(self, origin: Origin, tmp_path: Path) -> None:
        env = {"FETCHER_CACHE_DIR": str(tmp_path / "variable"), "FETCHER_INCLUDE": "*.json", "FETCHER_JSON": "1"}
        result = json.loads(run_fetcher("fetch", URI, env=env).stdout)
        assert (result["path"].startswith(str(tmp_path / "variable")), result["files"]) == (True, 1)
        done = run_fetcher("fetch", URI, "--cache-dir", tmp_path / "flag", env=env)
        assert json.loads(done.stdout)["path"].startswith(str(tmp_path / "flag"))


FAILURES = {
    "a scheme that is not built": (["fetch", "hdfs://bucket/model"], None, 64, "UnsupportedScheme: "),
    "no URI": (["fetch"], None, 64, "Usage: "),
    "an unknown flag": (["fetch", URI, "--nonsense"], None, 64, "Usage: "),
    "a bad size": (["fetch", URI, "--memory-limit", "much"], None, 64, "Usage: "),
    "always wrong bytes": (["fetch", URI], Fault(FlipBit(7), origin="cdn"), 65, "DigestMismatch: "),
    "no such revision": (["fetch", URI + "@nothing"], None, 66, "NotFound: "),
    "a failing source": (["fetch", URI, "--retry-for", "1"], Fault(Status(500)), 69, "Unreachable: "),
    "no directory to write to": (["fetch", URI, "--dest", "/etc/passwd/model"], None, 73, "CannotWrite: "),
    "a limit past the budget": (["fetch", URI], Fault(rate_limited(retry_after=3000)), 75, "RateLimited: "),
    "no right to read": (["fetch", URI], Fault(Status(403)), 77, "Unauthorized: "),
    "a claim that is not mounted": (["fetch", "pvc://claim/model"], None, 78, "Configuration: "),
}


@pytest.mark.parametrize(("words", "fault", "code", "start"), FAILURES.values(), ids=FAILURES)
def test_a_failure_has_its_exit_code_and_one_sentence(
    origin: Origin, tmp_path: Path, words: list[str], fault: Fault | None, code: int, start: str
) -> None:
    if fault is not None:
        origin.faults.add(fault)
    log = tmp_path / "termination"
    done = run_fetcher(*words, env={"FETCHER_CACHE_DIR": str(tmp_path), "FETCHER_TERMINATION_LOG": str(log)})
    assert (done.returncode, done.stdout) == (code, "")
    assert last_line(done.stderr).startswith(start)
    assert "Traceback" not in done.stderr
    message = json.loads(log.read_text())
    assert f"{message['reason']}: " == start
    assert message["retryable"] == (code in (69, 74, 75))
    assert message["message"] in last_line(done.stderr)


class TestTerminationMessage:
    def test_on_success_it_describes_the_result(self, origin: Origin, tmp_path: Path) -> None:
        log = tmp_path / "log"
        run_fetcher("fetch", URI, "--cache-dir", tmp_path / "cache", "--termination-log", log)
        message = json.loads(log.read_text())
        assert set(message) == {"reason", "message", "retryable", "bytes", "seconds", "path", "revision", "cached"}
        assert message["path"] == str(tmp_path / "cache" / ArtifactRef(URI).key)


class TestOtherCommands:
    def test_key(self) -> None:
        assert run_fetcher("key", "hf://org/m").stdout == "5df9d7cea3b612c3\n"
        assert run_fetcher("key", "hf://org/m", "--revision", "v1").stdout != "5df9d7cea3b612c3\n"

    def test_plan_fetches_nothing(self, origin: Origin, tmp_path: Path) -> None:
        done = run_fetcher("plan", URI, "--cache-dir", tmp_path, "--json")
        plan = json.loads(done.stdout)
        assert [file["path"] for file in plan["files"]] == list(FILES)
        assert plan["bytes_to_fetch"] == sum(map(len, FILES.values()))
        assert not list(tmp_path.iterdir())
        assert "model.safetensors" in run_fetcher("plan", URI, "--cache-dir", tmp_path).stdout

    def test_a_plan_escapes_control_characters_in_skipped_paths(self, origin: Origin, tmp_path: Path) -> None:
        origin.faults.add(Fault(extra_files("../\x1b[2J", "\ud800"), path="/tree/"))
        done = run_fetcher("plan", URI, "--cache-dir", tmp_path, "--include", "*.json")
        assert done.returncode == 0, done.stderr
        skipped = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("skipped")]
        assert skipped == ["model.safetensors", r"../\x1b[2J", r"\ud800"]

    def test_list_and_show(self, origin: Origin, tmp_path: Path) -> None:
        run_fetcher("fetch", URI, "--cache-dir", tmp_path)
        (entry,) = json.loads(run_fetcher("list", "--cache-dir", tmp_path, "--json").stdout)
        assert (entry["uri"], entry["cache_key"]) == (URI, ArtifactRef(URI).key)
        assert URI in run_fetcher("list", "--cache-dir", tmp_path).stdout
        for what in (URI, ArtifactRef(URI).key):
            assert "model.safetensors" in run_fetcher("show", what, "--cache-dir", tmp_path).stdout
        assert run_fetcher("show", "hf://org/else", "--cache-dir", tmp_path).returncode == 66

    def test_verify_reports_intact_and_damaged_files(self, origin: Origin, tmp_path: Path) -> None:
        path = Path(run_fetcher("fetch", URI, "--cache-dir", tmp_path).stdout.strip())
        for flags in ([], ["--full"], ["--json"]):
            assert run_fetcher("verify", "--cache-dir", tmp_path, *flags).returncode == 0
        with (path / "model.safetensors").open("r+b") as stream:
            stream.seek(2_000_000)
            stream.write(bytes([FILES["model.safetensors"][2_000_000] ^ 1]))
        for words in ([], ["--full"], [URI], [path]):
            done = run_fetcher("verify", *words, "--cache-dir", tmp_path)
            assert done.returncode == 65
            assert last_line(done.stderr).startswith("DigestMismatch: model.safetensors")
        (report,) = json.loads(run_fetcher("verify", "--cache-dir", tmp_path, "--json").stdout)
        assert (report["ok"], [bad[0] for bad in report["bad"]]) == (False, ["model.safetensors"])


def test_every_option_has_a_variable_and_a_help_text() -> None:
    for _, options in COMMANDS.values():
        for option in options:
            assert option.help
            assert option.variable == "FETCHER_" + option.name.upper()
