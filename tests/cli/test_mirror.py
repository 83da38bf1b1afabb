"""A mirror below a path of a repository manager: listings, redirects, retries and secrets, tested with the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Status
from fetcher.testing.faults import Fault
from fetcher.testing.hub import Addresses
from fetcher.testing.origin import Origin
from tests.cli.conftest import MiB
from tests.lab.command import run_fetcher

PREFIX = "/artifactory/api/huggingfaceml"
FILES = {
    "config.json": b"{}",
    "model.safetensors": random_bytes("mirror", 3 * MiB),
    **{f"tokenizer/{number} \u00fc.txt": bytes([number]) for number in range(7)},
}


def mirror(addresses: Addresses | None) -> Origin:
    return Origin(prefix=PREFIX, addresses=addresses, page_size=2, lfs_threshold=MiB, resolve_cache=True)


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file() and ".fetcher" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("addresses", [None, "absolute", "relative", "upstream", "without prefix"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_every_request_goes_below_the_path_of_the_mirror(tmp_path: Path, addresses: Addresses | None, slash: str) -> None:
    with mirror(addresses) as origin:
        origin.add_repo("org/model", FILES)
        done = run_fetcher(
            "fetch", "hf://org/model", "--dest", tmp_path / "model", env={"HF_ENDPOINT": origin.endpoint + slash}
        )
        assert done.returncode == 0, done.stderr
        asked = [request.path for request in origin.requests if request.origin == "hub"]
    assert contents(tmp_path / "model") == FILES
    assert all(path.startswith(f"{PREFIX}/") and not path.startswith(f"{PREFIX}{PREFIX}") for path in asked)
    assert len([path for path in asked if "/tree/" in path]) == 5


@pytest.mark.parametrize("addresses", [None, "without prefix"])
def test_each_failed_request_is_retried_at_the_mirror(tmp_path: Path, addresses: Addresses | None) -> None:
    with mirror(addresses) as origin:
        origin.add_repo("org/model", FILES)
        origin.faults.add(Fault(Status(503, (("Retry-After", "0"),)), every=3, times=6))
        words = ("fetch", "hf://org/model", "--dest", tmp_path / "model", "--max-concurrency", "1")
        done = run_fetcher(*words, env={"HF_ENDPOINT": origin.endpoint})
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "model") == FILES


@pytest.mark.parametrize("words", [["plan"], ["fetch"]])
def test_a_url_of_the_mirror_names_its_repository(tmp_path: Path, words: list[str]) -> None:
    with mirror(None) as origin:
        origin.add_repo("org/model", FILES)
        uri = f"{origin.endpoint}/org/model/resolve/main/model.safetensors"
        done = run_fetcher(*words, uri, "--cache-dir", tmp_path, "--json", env={"HF_ENDPOINT": origin.endpoint})
        assert done.returncode == 0, done.stderr
        assert any("/tree/" in request.path for request in origin.requests)


def test_a_mirror_given_without_its_path_is_not_found(tmp_path: Path) -> None:
    with mirror(None) as origin:
        origin.add_repo("org/model", FILES)
        endpoint = origin.endpoint.removesuffix(PREFIX)
        done = run_fetcher("fetch", "hf://org/model", "--cache-dir", tmp_path, env={"HF_ENDPOINT": endpoint})
    assert done.returncode == 66, done.stderr


class TestPasswords:
    """`HF_ENDPOINT=https://user:password@mirror`: sent to the mirror, shown nowhere."""

    SECRETS = ("pa55w0rd", "us3rname", "dXMzcm5hbWU6cGE1NXcwcmQ")

    def check(self, tmp_path: Path, *texts: str) -> None:
        paths = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
        text = "\n".join([*texts, *map(str, paths), *(path.read_bytes().decode("latin-1") for path in paths)])
        assert not [secret for secret in self.SECRETS if secret in text], text

    def endpoint(self, origin: Origin) -> str:
        return origin.endpoint.replace("://", "://us3rname:pa55w0rd@")

    @pytest.mark.parametrize("progress", ["json", "log"])
    def test_fetch_plan_list_and_show_write_no_password(self, tmp_path: Path, progress: str) -> None:
        with mirror(None) as origin:
            origin.add_repo("org/model", FILES)
            env, place = {"HF_ENDPOINT": self.endpoint(origin)}, ("--cache-dir", tmp_path / "cache")
            words = ("--json", "--progress", progress, "--termination-log", tmp_path / "log", "--metrics-file", tmp_path / "m")
            done = run_fetcher("fetch", "hf://org/model", *place, *words, env=env)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["revision"]
            output = [done.stdout, done.stderr]
            for command in (["plan", "hf://org/model"], ["list"], ["show", "hf://org/model"]):
                later = run_fetcher(*command, *place, "--json", env=env)
                output += [later.stdout, later.stderr]
            sent = {request.origin for request in origin.requests if "authorization" in request.headers}
        assert sent == {"hub"}
        self.check(tmp_path, *output)

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (Status(401, (), b'{"error": "us3rname:pa55w0rd is wrong (Basic dXMzcm5hbWU6cGE1NXcwcmQ=)"}'), 77),
            (Status(403, (("X-Error-Message", "pa55w0rd of us3rname has expired"),)), 77),
            (Status(404), 66),
            (Status(503), 69),
            (Status(302, (("Location", "http://us3rname:pa55w0rd@127.0.0.1:9/x"),)), 69),
        ],
        ids=["401", "403", "404", "503", "a redirect that repeats it"],
    )
    def test_a_refused_request_shows_no_password(self, tmp_path: Path, answer: Status, code: int) -> None:
        with mirror(None) as origin:
            origin.faults.add(Fault(answer))
            words = (
                "--cache-dir",
                tmp_path / "cache",
                "--retry-for",
                "1",
                "--progress",
                "json",
                "--termination-log",
                tmp_path / "l",
            )
            done = run_fetcher("fetch", "hf://org/model", *words, env={"HF_ENDPOINT": self.endpoint(origin)})
        assert done.returncode == code, done.stderr
        self.check(tmp_path, done.stdout, done.stderr)

    def test_a_token_as_user_name_is_not_shown(self, tmp_path: Path) -> None:
        with mirror(None) as origin:
            origin.faults.add(Fault(Status(403, (("X-Error-Message", "us3rname is unknown"),))))
            env = {"HF_ENDPOINT": origin.endpoint.replace("://", "://us3rname@")}
            done = run_fetcher("fetch", "hf://org/model", "--cache-dir", tmp_path / "cache", "--progress", "json", env=env)
        assert done.returncode == 77, done.stderr
        self.check(tmp_path, done.stdout, done.stderr)

    @pytest.mark.parametrize(
        "endpoint", ["https://us3rname:pa55w0rd@[half", "ftp://us3rname:pa55w0rd@mirror", "us3rname:pa55w0rd@m"]
    )
    @pytest.mark.parametrize("command", ["fetch", "plan"])
    def test_a_malformed_endpoint_is_reported_without_its_password(self, tmp_path: Path, endpoint: str, command: str) -> None:
        done = run_fetcher(command, "hf://org/model", "--cache-dir", tmp_path, env={"HF_ENDPOINT": endpoint})
        assert done.returncode == 78, done.stderr
        assert "HF_ENDPOINT" in done.stderr
        self.check(tmp_path, done.stdout, done.stderr)
