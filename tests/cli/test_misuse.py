"""Mistakes on the command line and in calls from Python are refused before anything is fetched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fetcher
from fetcher.artifact import ArtifactRef
from fetcher.errors import UsageError
from fetcher.settings import hub_cache_dir
from fetcher.testing.origin import Origin
from tests.cli.conftest import URI, last_line
from tests.lab.command import run_fetcher

ENDLESS = "9" * 400


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "config.json").write_bytes(b"{}")
    return path


class TestOnTheCommandLine:
    @pytest.mark.parametrize("flag", ["--dest", "--cache-dir", "--revision", "--include", "--exclude", "--termination-log"])
    def test_an_empty_flag_is_refused(self, source: Path, tmp_path: Path, flag: str) -> None:
        here = tmp_path / "here"
        here.mkdir()
        done = run_fetcher("fetch", source, flag, "", env={"FETCHER_CACHE_DIR": str(tmp_path / "cache")}, cwd=here)
        assert (done.returncode, done.stdout) == (64, "")
        assert last_line(done.stderr).startswith(f"Usage: {flag} is empty")
        assert not list(here.iterdir())

    def test_a_cache_directory_and_a_destination_together_are_refused(self, source: Path, tmp_path: Path) -> None:
        done = run_fetcher("fetch", source, "--cache-dir", tmp_path / "cache", "--dest", tmp_path / "dest")
        assert done.returncode == 64
        assert last_line(done.stderr).startswith("Usage: --cache-dir and --dest both say where")

    def test_a_destination_flag_takes_precedence_over_the_cache_variable(self, source: Path, tmp_path: Path) -> None:
        done = run_fetcher("fetch", source, "--dest", tmp_path / "dest", env={"FETCHER_CACHE_DIR": str(tmp_path / "cache")})
        assert (done.returncode, done.stdout) == (0, f"{tmp_path}/dest\n")

    @pytest.mark.parametrize("command", ["fetch", "plan", "key"])
    def test_an_empty_uri_is_refused(self, tmp_path: Path, command: str) -> None:
        done = run_fetcher(command, "", env={"FETCHER_CACHE_DIR": str(tmp_path)})
        assert (done.returncode, done.stdout) == (64, "")
        assert last_line(done.stderr).startswith("Usage: the URI is empty")

    @pytest.mark.parametrize(
        ("flag", "text"),
        [
            ("--max-concurrency", "\N{SUPERSCRIPT TWO}"),
            *((flag, ENDLESS) for flag in ("--max-concurrency", "--memory-limit", "--limit-rate", "--timeout-stall")),
        ],
    )
    def test_a_malformed_or_endless_number_is_refused(self, source: Path, tmp_path: Path, flag: str, text: str) -> None:
        done = run_fetcher("fetch", source, "--cache-dir", tmp_path / "cache", flag, text)
        assert done.returncode == 64
        assert last_line(done.stderr).startswith(f"Usage: {flag}: {text!r} is not a ")

    def test_an_abbreviated_flag_is_refused(self, tmp_path: Path) -> None:
        assert run_fetcher("list", "--cache", tmp_path).returncode == 64

    @pytest.mark.parametrize("name", ["absent", "file"])
    def test_verifying_a_missing_cache_fails(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        done = run_fetcher("verify", "--cache-dir", tmp_path / name)
        assert done.returncode == 66
        assert last_line(done.stderr).startswith("NotFound: cannot verify")

    def test_verify_and_show_of_a_directory_need_neither_cache_nor_home(self, source: Path, tmp_path: Path) -> None:
        run_fetcher("fetch", source, "--dest", tmp_path / "artifact")
        for command in ("verify", "show"):
            done = run_fetcher(command, tmp_path / "artifact", env={"HOME": ""})
            assert done.returncode == 0, done.stderr

    def test_verifying_an_empty_cache_succeeds(self, tmp_path: Path) -> None:
        assert run_fetcher("verify", "--cache-dir", tmp_path).returncode == 0

    @pytest.mark.parametrize(("words", "env"), [(["--full"], {}), ([], {"FETCHER_FULL": "1"})])
    def test_a_flag_or_a_variable_requests_full_verification(
        self, source: Path, tmp_path: Path, words: list[str], env: dict[str, str]
    ) -> None:
        run_fetcher("fetch", source, "--cache-dir", tmp_path / "cache")
        (report,) = json.loads(run_fetcher("verify", "--json", "--cache-dir", tmp_path / "cache", *words, env=env).stdout)
        assert (report["ok"], report["full"]) == (True, True)


NONSENSE: dict[str, Any] = {
    "layout": "tree",
    "refresh": "always",
    "page_cache": "some",
    "max_concurrency": 0,
    "memory_limit": "1Gi",
    "limit_rate": 0,
    "timeout_stall": 0,
    "retry_for": -1,
    "lease_wait": float("nan"),
    "lease_stale": float("inf"),
    "cache_dir": "",
    "dest": "",
    "revision": "",
}


class TestFromPython:
    @pytest.mark.parametrize("name", NONSENSE)
    def test_an_invalid_setting_is_named(self, source: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match=f"^{name} is "):
            fetcher.fetch(str(source), **{"cache_dir": tmp_path / "cache", name: NONSENSE[name]})
        assert not (tmp_path / "cache").exists()

    @pytest.mark.parametrize("name", ["include", "exclude"])
    def test_a_string_instead_of_a_list_of_patterns_is_refused(self, source: Path, tmp_path: Path, name: str) -> None:
        arguments: dict[str, Any] = {name: "*.json"}
        with pytest.raises(UsageError, match="take a list of patterns"):
            fetcher.fetch(str(source), cache_dir=tmp_path / "cache", **arguments)

    async def test_fetch_inside_a_running_event_loop_is_refused_even_for_a_hit(self, source: Path, tmp_path: Path) -> None:
        await fetcher.fetch_async(str(source), cache_dir=tmp_path / "cache")
        with pytest.raises(UsageError, match="inside a running event loop"):
            fetcher.fetch(str(source), cache_dir=tmp_path / "cache")

    def test_limits_can_be_none(self, source: Path, tmp_path: Path) -> None:
        unlimited: dict[str, Any] = {"limit_rate": None, "lease_wait": None, "lease_stale": None, "retry_for": 0}
        artifact = fetcher.fetch(str(source), cache_dir=tmp_path / "cache", **unlimited)
        assert artifact.path.name == ArtifactRef(str(source)).key


class TestTheHubsCache:
    """`hub_cache_dir` reads the variables of huggingface_hub in the same order."""

    ORDER = (
        ({"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d", "HOME": "/e"}, "/d/huggingface/hub"),
        ({"HOME": "/e"}, "/e/.cache/huggingface/hub"),
    )

    @pytest.mark.parametrize(("environ", "place"), ORDER)
    def test_it_is_the_directory_that_huggingface_hub_uses(self, environ: dict[str, str], place: str) -> None:
        assert hub_cache_dir(environ) == Path(place) == directory_of_huggingface_hub(environ)

    def test_home_and_variables_are_expanded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/a")
        monkeypatch.setenv("DISK", "/disk")
        assert hub_cache_dir({"HF_HUB_CACHE": "~/hub"}) == Path("/home/a/hub")
        assert hub_cache_dir({"HF_HOME": "$DISK/hf"}) == Path("/disk/hf/hub")

    def test_without_home_and_variables_there_is_no_directory(self) -> None:
        assert hub_cache_dir({}) is None

    def test_python_places_the_artifact_there_too(
        self, origin: Origin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        artifact = fetcher.fetch(URI, layout="hf-cache")
        assert artifact.path.parent == tmp_path / "models--org--model" / "snapshots"
        assert origin.requests


def directory_of_huggingface_hub(environ: dict[str, str]) -> Path:
    """Return the cache directory that huggingface_hub chooses with that environment, in a separate process."""
    probe = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", probe], env=environ, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())
