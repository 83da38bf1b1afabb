"""Every setting has a flag and a variable with the same meaning; the flag takes precedence; an error names the wrong one."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from fetcher.cli.options import FETCH, HOLD, LIMITS, PARTS, PLACE, ROOT, SELECTION, settings_from
from fetcher.cli.parser import COMMANDS, build_parser
from fetcher.command.common_options import ENDING, METRICS
from fetcher.command.options import Option, values
from fetcher.errors import ConfigurationError, UsageError
from fetcher.quantities import Amount
from fetcher.settings import Part
from tests.cli.conftest import last_line
from tests.lab.command import run_fetcher

DIGEST = "sha256:" + "ab" * 32
ALL = (*ROOT, *SELECTION, *PLACE, *FETCH, *PARTS, *LIMITS, *HOLD, *METRICS, *ENDING)

GOOD: dict[str, tuple[str, Any]] = {
    "cache_dir": ("/cache", Path("/cache")),
    "json": ("1", True),
    "revision": ("v1", "v1"),
    "include": ("*.json", ("*.json",)),
    "exclude": ("*.bin", ("*.bin",)),
    "dest": ("/model", Path("/model")),
    "layout": ("hf-cache", "hf-cache"),
    "require_digests": ("yes", True),
    "require_checksums": ("yes", True),
    "accept_unverified": ("1", True),
    "hard_link": ("on", True),
    "dedupe": ("link", "link"),
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
    "expect_file": ("SHA256SUMS", "SHA256SUMS"),
    "signing_key": ("/key.pem", Path("/key.pem")),
    "signing_certificates": ("/certificates.pem", Path("/certificates.pem")),
    "signing_identity": ("release@example.org", "release@example.org"),
    "signing_issuer": ("https://accounts.example.org", "https://accounts.example.org"),
    "mirrors": ("http://node:8650/", ("http://node:8650",)),
    "mirror_secret_file": ("/secret", Path("/secret")),
    "mirror_ca": ("/ca.pem", Path("/ca.pem")),
    "mirror_cert": ("/cert.pem", Path("/cert.pem")),
    "mirror_key": ("/key.pem", Path("/key.pem")),
    "part": ("1/4", Part(1, 4)),
    "parts": ("4", 4),
    "max_size": ("80%", Amount(80.0, percent=True)),
    "min_free": ("10Gi", Amount(10 << 30)),
    "min_idle": ("2h", 7200.0),
    "hold": ("12h", 43200.0),
    "pod_uid": ("a-pod", "a-pod"),
}
"""Name → text and its value. `expect` has its own test below."""

BAD = {
    **dict.fromkeys(("json", "require_digests", "require_checksums", "accept_unverified", "hard_link"), "perhaps"),
    **dict.fromkeys(("layout", "refresh", "dedupe", "page_cache", "progress", "max_concurrency"), "nonsense"),
    **dict.fromkeys(("max_size", "min_free", "min_idle", "hold", "part", "parts"), "nonsense"),
    **dict.fromkeys(("limit_rate", "memory_limit", "timeout_stall", "retry_for", "lease_wait", "lease_stale"), "nonsense"),
    "expect": "model.safetensors=md5:1234",
    "mirrors": "http://cache/no-placeholder",
    "pvc_mount": "claim",
    "metrics_port": "65536",
    "metrics_label": "artifact",
}


def by_flag(option: Option, text: str) -> dict[str, Any]:
    words = [option.flag] if option.switch else [option.flag, text]
    return values(ALL, build_parser().parse_args(["fetch", "hf://org/model", *words]), {})


def by_variable(option: Option, text: str) -> dict[str, Any]:
    return values(ALL, no_flags(), {option.variable: text})


def no_flags() -> Namespace:
    return build_parser().parse_args(["fetch", "hf://org/model"])


def test_this_file_covers_every_option() -> None:
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
def test_a_bad_flag_is_named_in_a_usage_error(option: Option) -> None:
    with pytest.raises(UsageError, match=option.flag):
        by_flag(option, BAD[option.name])


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_a_variable_can_turn_a_switch_off(text: str) -> None:
    assert values(ALL, no_flags(), {"FETCHER_REQUIRE_DIGESTS": text}) == {"require_digests": False}


def test_an_empty_variable_counts_as_unset() -> None:
    assert values(ALL, no_flags(), {"FETCHER_MEMORY_LIMIT": " "}) == {}


def test_a_variable_holds_several_values_and_the_flag_replaces_all() -> None:
    environ = {"FETCHER_INCLUDE": "*.json, *.safetensors\ntokenizer*\n"}
    assert values(ALL, no_flags(), environ) == {"include": ("*.json", "*.safetensors", "tokenizer*")}
    arguments = build_parser().parse_args(["fetch", "hf://org/model", "--include", "a,b", "--include", "c"])
    assert values(ALL, arguments, environ) == {"include": ("a,b", "c")}


@pytest.mark.parametrize("text", ["=llama", "no name=x", "__internal=x", "reason=x", "phase=x", "3=x", "n" * 64 + "=x"])
def test_an_invalid_or_reserved_label_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a label; write NAME=VALUE"):
        values(ALL, build_parser().parse_args(["fetch", "hf://org/model", "--metrics-label", text]), {})


def test_the_path_of_an_expected_digest_can_contain_an_equals_sign() -> None:
    options = values(ALL, no_flags(), {"FETCHER_EXPECT": f"a=b.safetensors={DIGEST}"})
    assert {path: str(digest) for path, digest in settings_from({**options, "cache_dir": Path("/c")}, {}).expect.items()} == {
        "a=b.safetensors": DIGEST
    }


class TestPlace:
    def test_the_default_is_the_users_cache(self) -> None:
        assert settings_from({}, {"HOME": "/home/a"}).cache_dir == Path("/home/a/.cache/weightlift")

    def test_a_destination_needs_neither_cache_nor_home(self) -> None:
        assert settings_from({"dest": Path("/model")}, {}).dest == Path("/model")

    def test_without_home_the_error_names_the_variable(self) -> None:
        with pytest.raises(ConfigurationError, match="FETCHER_CACHE_DIR"):
            settings_from({}, {})

    def test_the_hubs_layout_uses_the_hubs_variables(self) -> None:
        assert settings_from({"layout": "hf-cache"}, {"HF_HUB_CACHE": "/hub"}).cache_dir == Path("/hub")
        assert settings_from({"layout": "hf-cache"}, {"HF_HOME": "/home"}).cache_dir == Path("/home/hub")

    def test_a_relative_directory_is_printed_as_absolute(self, tmp_path: Path) -> None:
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

    def test_a_missing_command_is_a_usage_error(self) -> None:
        done = run_fetcher()
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (64, "Usage:")

    def test_the_error_for_an_unsupported_scheme_names_the_supported_ones(self) -> None:
        line = last_line(run_fetcher("fetch", "hdfs://host/model").stderr)
        assert all(scheme in line for scheme in ("hf://", "https://", "file://", "pvc://"))


def test_a_bad_variable_affects_only_commands_that_use_it(tmp_path: Path) -> None:
    env = {"FETCHER_MEMORY_LIMIT": "nonsense"}
    assert run_fetcher("key", "hf://org/m", env=env).stdout == "5df9d7cea3b612c3\n"
    assert json.loads(run_fetcher("list", "--cache-dir", tmp_path, "--json", env=env).stdout) == []
