"""A test does not depend on the user's environment, and the command runs as a separate process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.lab import availability
from tests.lab.command import run_fetcher
from tests.lab.environment import is_foreign
from tests.lab.fixtures import StartFetcher


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "FETCHER_CACHE_DIR", "NETRC"),
        *("https_proxy", "NO_PROXY", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GITHUB_TOKEN", "XDG_CACHE_HOME"),
    ],
)
def test_variables_that_would_change_a_fetch_are_foreign(name: str) -> None:
    assert is_foreign(name)


@pytest.mark.parametrize("name", ["PATH", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"])
def test_variables_that_programs_need_are_kept(name: str) -> None:
    assert not is_foreign(name)


def test_no_foreign_variable_is_left_and_home_is_empty(clean_environment: Path) -> None:
    assert not [name for name in os.environ if is_foreign(name)]
    assert Path.home() == clean_environment
    assert not os.listdir(clean_environment)


class TestMissingParts:
    def test_a_missing_part_skips_with_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(availability, "_REQUIRED", False)
        with pytest.raises(pytest.skip.Exception, match="the lab has no nonesuch; on Debian: apt-get install nonesuch-light"):
            availability.program("nonesuch", package="nonesuch-light")

    def test_a_missing_part_fails_if_the_lab_is_required(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(availability, "_REQUIRED", True)
        with pytest.raises(pytest.fail.Exception, match="the lab has no nonesuch"):
            availability.program("nonesuch", package="nonesuch-light")


class TestCommand:
    def test_run_fetcher_returns_the_output_of_the_command(self) -> None:
        finished = run_fetcher("key", "hf://org/m")
        assert (finished.returncode, finished.stdout) == (0, "5df9d7cea3b612c3\n"), finished.stderr

    def test_a_started_command_can_be_killed(self, start_fetcher: StartFetcher) -> None:
        process = start_fetcher("key", "hf://org/m")
        process.send_signal(signal.SIGSTOP)
        process.kill()
        assert process.wait(timeout=10) in (0, -signal.SIGKILL)
