"""The command line of `loader`: each flag has a variable, a help text and a line in the reference."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from fetcher import __version__
from fetcher.command.options import Option, values
from fetcher.errors import ConfigurationError, UsageError
from loader.cli.parser import COMMANDS, POSITIONAL, build_parser
from tests.cli.conftest import last_line
from tests.lab.command import run_loader

ALL = {option.name: option for _, options in COMMANDS.values() for option in options}

GOOD: dict[str, tuple[str, Any]] = {
    "json": ("1", True),
    "partial": ("yes", True),
    "strategy": ("direct", "direct"),
    "verify": ("before", "before"),
    "revision": ("v1", "v1"),
    "window": ("256Mi", 256 * 1024 * 1024),
    "threads": ("8", 8),
    "rank": ("0", 0),
    "world_size": ("8", 8),
    "progress": ("log", "log"),
    "termination_log": ("/log", Path("/log")),
    "ready_file": ("/run/ready", Path("/run/ready")),
    "metrics_port": ("0", 0),
    "metrics_address": ("127.0.0.1", "127.0.0.1"),
    "metrics_file": ("/m.prom", Path("/m.prom")),
    "metrics_label": ("artifact=llama", (("artifact", "llama"),)),
    "interval": ("1m", 60.0),
}
BAD = {
    **dict.fromkeys(("json", "partial"), "perhaps"),
    **dict.fromkeys(("threads", "rank", "world_size", "strategy", "verify", "window", "progress", "interval"), "nonsense"),
    "metrics_port": "65536",
    "metrics_label": "artifact",
}


def parsed(option: Option, *words: str) -> Namespace:
    command = next(name for name, (_, options) in COMMANDS.items() if option in options)
    return build_parser().parse_args([command, *POSITIONAL[command].split(), *words])


def test_every_option_has_a_case() -> None:
    assert set(ALL) == set(GOOD)


@pytest.mark.parametrize("option", ALL.values(), ids=ALL)
def test_a_flag_and_its_variable_mean_the_same(option: Option) -> None:
    text, meaning = GOOD[option.name]
    words = [option.flag] if option.switch else [option.flag, text]
    assert option.variable == "LOADER_" + option.flag[2:].upper().replace("-", "_")
    by_flag = values([option], parsed(option, *words), {})
    assert by_flag == values([option], parsed(option), {option.variable: text}) == {option.name: meaning}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_value_is_refused_with_the_name_of_its_flag_or_variable(name: str) -> None:
    option = ALL[name]
    with pytest.raises(ConfigurationError, match=option.variable):
        values([option], parsed(option), {option.variable: BAD[name]})
    if not option.switch:
        with pytest.raises(UsageError, match=option.flag):
            values([option], parsed(option, option.flag, BAD[name]), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_and_its_variable(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        build_parser().parse_args([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in COMMANDS[command][1]:
        assert option.flag in text
        assert f"[{option.variable}]" in text


def test_help_lists_every_command() -> None:
    text = run_loader("--help").stdout
    assert [command for command in COMMANDS if f"    {command} " not in text] == []


def test_the_version_is_that_of_the_package() -> None:
    assert run_loader("--version").stdout == f"loader {__version__}\n"


def test_a_missing_command_is_a_usage_error() -> None:
    done = run_loader()
    assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (64, "Usage:")


def test_status_drop_and_usage_errors_do_not_write_the_termination_message(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for words in (["status", "/nothing"], ["drop", "/nothing"], ["status"]):
        run_loader(*words, env={"LOADER_TERMINATION_LOG": str(log)})
    assert not log.exists()


@pytest.mark.parametrize(("old", "new"), [("evict", "drop"), ("pin", "hold")])
def test_old_command_names_work_but_no_help_shows_them(old: str, new: str, tmp_path: Path) -> None:
    before, after = run_loader(old, tmp_path / "nothing"), run_loader(new, tmp_path / "nothing")
    assert (before.returncode, before.stderr) == (after.returncode, after.stderr)
    assert after.returncode == 66
    shown = run_loader("--help").stdout.split()
    assert new in shown
    assert old not in shown
