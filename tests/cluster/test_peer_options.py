"""The options of agent and controller about peers: words and variables, as the commands read them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import cluster.agent.options as agent
import cluster.controller.options as controller
from cluster.client import ApiAccess
from cluster.daemon import run_daemon
from fetcher.command.running import Report

Read = Callable[..., tuple[int, Any]]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """How an API server is reached that nobody asks."""
    here = {"name": "here", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "weightlift"}}
    users = [{"name": "me", "user": {"token": "t"}}]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({"clusters": [here], "contexts": [context], "users": users, "current-context": "here"}))
    return path


@pytest.fixture
def agent_with(kubeconfig: Path, tmp_path: Path) -> Read:
    """Read the words of an agent. Returns the exit code and the configuration."""
    given = ("--node", "n", "--root", str(tmp_path), "--kubeconfig", str(kubeconfig))
    return lambda *words: read((*given, *words), agent)


@pytest.fixture
def controller_with(kubeconfig: Path) -> Read:
    return lambda *words: read(("--image", "i", "--kubeconfig", str(kubeconfig), *words), controller)


def read(words: tuple[str, ...], options: Any) -> tuple[int, Any]:
    made = []

    def work(access: ApiAccess, chosen: Mapping[str, Any], _: Report) -> None:
        made.append(options.config_from(chosen, os.environ, access.namespace))

    code = run_daemon(words, "weightlift", "", options.OPTIONS, work)
    return code, made[0] if made else None


class TestAgent:
    def test_by_default_it_meets_no_peers(self, agent_with: Read) -> None:
        _, config = agent_with()
        assert (config.peer_address, config.peer_port, config.peer_rate) == (None, 8650, None)

    def test_words_say_where_and_how_fast_it_serves(self, agent_with: Read) -> None:
        _, config = agent_with("--peer-address", "10.0.0.7", "--peer-port", "9000", "--peer-rate", "500M")
        assert (config.peer_address, config.peer_port, config.peer_rate) == ("10.0.0.7", 9000, 500e6)

    def test_variables_say_the_same(self, agent_with: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("ADDRESS", "fd00::7"), ("PORT", "9000"), ("RATE", "1Gi")):
            monkeypatch.setenv(f"WEIGHTLIFT_PEER_{name}", value)
        _, config = agent_with()
        assert (config.peer_address, config.peer_port, config.peer_rate) == ("fd00::7", 9000, 1024.0**3)

    @pytest.mark.parametrize(
        ("option", "word"),
        [("--peer-port", "0"), ("--peer-port", "65536"), ("--peer-port", "http"), ("--peer-rate", "fast")],
    )
    def test_a_word_that_means_nothing_ends_the_command(
        self, agent_with: Read, option: str, word: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert agent_with(option, word)[0] == 64
        assert option in capfd.readouterr().err


class TestController:
    def test_the_secret_of_the_authority_has_a_name(self, controller_with: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        names = [controller_with()[1].peer_secret, controller_with("--peer-secret", "a-name")[1].peer_secret]
        monkeypatch.setenv("WEIGHTLIFT_PEER_SECRET", "another")
        assert [*names, controller_with()[1].peer_secret] == ["weightlift-peer-authority", "a-name", "another"]
