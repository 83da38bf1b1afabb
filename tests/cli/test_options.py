"""Every setting has a flag and a variable, which mean the same; the flag wins; what is wrong is named."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from fetcher.cli.options import FETCH, PLACE, ROOT, SELECTION, settings_from
from fetcher.cli.parser import COMMANDS, build_parser
from fetcher.command.common_options import ENDING, METRICS
from fetcher.command.options import Option, values
from fetcher.errors import ConfigurationError, UsageError
from tests.cli.conftest import last_line
from tests.lab.command import run_fetcher

DIGEST = "sha256:" + "ab" * 32
ALL = (*ROOT, *SELECTION, *PLACE, *FETCH, *METRICS, *ENDING)

GOOD: dict[str, tuple[str, Any]] = {
    "cache_dir": ("/cache", Path("/cache")),
    "json": ("1", True),
    "revision": ("v1", "v1"),
    "include": ("*.json", ("*.json",)),
    "exclude": ("*.bin", ("*.bin",)),
    "dest": ("/model", Path("/model")),
    "layout": ("hf-cache", "hf-cache"),
    "require_digests": ("yes", True),
    "hard_link": ("on", True),
    "refresh": ("on-change", "on-change"),
    "max_concurrency": ("64", 64),
    "limit_rate": ("100MB/s", 100e6),
    "memory_limit": ("64Mi", 64 << 20),
    "page_cache": ("drop", "drop"),
    "timeout_stall": ("1m", 60.0),
    "retry_for": ("1h30m", 5400.0),
    "lease_wait": ("250ms", 0.25),
    "lease_stale": ("90", 90.0),
    "metrics_port": ("9090", 9090),
    "metrics_address": ("::1", "::1"),
    "metrics_file": ("/m.prom", Path("/m.prom")),
    "metrics_label": ("artifact=llama=3", (("artifact", "llama=3"),)),
    "progress": ("none", "none"),
    "termination_log": ("/log", Path("/log")),
    "pvc_mount": ("claim=/mnt", (("claim", Path("/mnt")),)),
}
"""Name → text and what it means. `expect` is below, since its value is no simple one."""

BAD = {
    **dict.fromkeys(("json", "require_digests", "hard_link"), "perhaps"),
    **dict.fromkeys(("layout", "refresh", "page_cache", "progress", "max_concurrency"), "nonsense"),
    **dict.fromkeys(("limit_rate", "memory_limit", "timeout_stall", "retry_for", "lease_wait", "lease_stale"), "nonsense"),
    "expect": "model.safetensors=md5:1234",
    "pvc_mount": "claim",
    "metrics_port": "65536",
    "metrics_label": "artifact",
}


def by_flag(option: Option, text: str) -> dict[str, Any]:
    words = [option.flag] if option.switch else [option.flag, text]
    return values(ALL, build_parser().parse_args(["fetch", "hf://org/model", *words]), {})


def by_variable(option: Option, text: str) -> dict[str, Any]:
    return values(ALL, nothing_given(), {option.variable: text})


def nothing_given() -> Namespace:
    return build_parser().parse_args(["fetch", "hf://org/model"])


def test_no_option_is_left_out_here() -> None:
    assert {option.name for option in ALL} == {*GOOD, "expect"}


@pytest.mark.parametrize("option", [option for option in ALL if option.name in GOOD], ids=lambda option: option.name)
def test_flag_and_variable_mean_the_same(option: Option) -> None:
    text, meaning = GOOD[option.name]
    assert by_flag(option, text) == by_variable(option, text) == {option.name: meaning}


@pytest.mark.parametrize("option", [option for option in ALL if option.name in BAD], ids=lambda option: option.name)
def test_a_bad_variable_is_named(option: Option) -> None:
    with pytest.raises(ConfigurationError, match=option.variable):
        by_variable(option, BAD[option.name])


@pytest.mark.parametrize(
    "option", [option for option in ALL if option.name in BAD and not option.switch], ids=lambda option: option.name
)
def test_a_bad_flag_is_named_and_a_matter_of_usage(option: Option) -> None:
    with pytest.raises(UsageError, match=option.flag):
        by_flag(option, BAD[option.name])


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_a_switch_can_be_switched_off_by_its_variable(text: str) -> None:
    assert values(ALL, nothing_given(), {"FETCHER_REQUIRE_DIGESTS": text}) == {"require_digests": False}


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert values(ALL, nothing_given(), {"FETCHER_MEMORY_LIMIT": " "}) == {}


def test_a_repeated_variable_holds_several_values_and_the_flag_replaces_them_all() -> None:
    environ = {"FETCHER_INCLUDE": "*.json, *.safetensors\ntokenizer*\n"}
    assert values(ALL, nothing_given(), environ) == {"include": ("*.json", "*.safetensors", "tokenizer*")}
    given = build_parser().parse_args(["fetch", "hf://org/model", "--include", "a,b", "--include", "c"])
    assert values(ALL, given, environ) == {"include": ("a,b", "c")}


@pytest.mark.parametrize("text", ["=llama", "no name=x", "__internal=x", "reason=x", "phase=x", "3=x", "n" * 64 + "=x"])
def test_a_label_that_prometheus_or_our_own_metrics_would_not_bear_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--metrics-label: not NAME=VALUE"):
        values(ALL, build_parser().parse_args(["fetch", "hf://org/model", "--metrics-label", text]), {})


def test_an_expected_digest_may_belong_to_a_path_with_an_equals_sign() -> None:
    found = values(ALL, nothing_given(), {"FETCHER_EXPECT": f"a=b.safetensors={DIGEST}"})
    assert {path: str(digest) for path, digest in settings_from({**found, "cache_dir": Path("/c")}, {}).expect.items()} == {
        "a=b.safetensors": DIGEST
    }


class TestWhereTo:
    def test_without_any_word_it_is_the_users_cache(self) -> None:
        assert settings_from({}, {"HOME": "/home/a"}).cache_dir == Path("/home/a/.cache/weightlift")

    def test_a_destination_needs_neither_cache_nor_home(self) -> None:
        assert settings_from({"dest": Path("/model")}, {}).dest == Path("/model")

    def test_nowhere_is_a_matter_of_configuration(self) -> None:
        with pytest.raises(ConfigurationError, match="FETCHER_CACHE_DIR"):
            settings_from({}, {})

    def test_the_hubs_layout_goes_where_the_hubs_variables_say(self) -> None:
        assert settings_from({"layout": "hf-cache"}, {"HF_HUB_CACHE": "/hub"}).cache_dir == Path("/hub")
        assert settings_from({"layout": "hf-cache"}, {"HF_HOME": "/home"}).cache_dir == Path("/home/hub")

    def test_a_relative_place_is_printed_absolute(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "config.json").write_text("{}")
        done = run_fetcher("fetch", tmp_path / "source", "--cache-dir", "cache", cwd=tmp_path)
        assert done.stdout.startswith(f"{tmp_path}/cache/")


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_it_names_every_option_and_its_variable(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        for option in COMMANDS[command][1]:
            assert option.flag in text
            assert f"[{option.variable}]" in text

    def test_every_command_is_listed(self) -> None:
        text = run_fetcher("--help").stdout
        assert [command for command in COMMANDS if f"    {command} " not in text] == []

    def test_no_command_at_all_is_a_matter_of_usage(self) -> None:
        done = run_fetcher()
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (64, "Usage:")

    def test_an_unsupported_scheme_names_those_that_work(self) -> None:
        line = last_line(run_fetcher("fetch", "oci://registry/model").stderr)
        assert all(scheme in line for scheme in ("hf://", "https://", "file://", "pvc://"))


def test_a_bad_variable_of_one_command_does_not_stop_another(tmp_path: Path) -> None:
    env = {"FETCHER_MEMORY_LIMIT": "nonsense"}
    assert run_fetcher("key", "hf://org/m", env=env).stdout == "5df9d7cea3b612c3\n"
    assert json.loads(run_fetcher("list", "--cache-dir", tmp_path, "--json", env=env).stdout) == []
