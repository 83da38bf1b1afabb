"""`storage-initializer` keeps KServe's contract and this project's own promises."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.dropins.unpacking import ArchiveSource
from fetcher.errors import NotFound
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import Redirect, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.dropins.archives import FORMATS, tar
from tests.dropins.conftest import FILES, MiB, last_line, tree
from tests.lab.command import STORAGE_INITIALIZER, end, run_command, started_command
from tests.lab.waiting import wait_until

URI = "hf://org/model"
VICTIM = """
import os, signal, sys
from fetcher.archives import members as unpacking
from fetcher.dropins import storage_initializer

members, unchanged = int(sys.argv[1]), unpacking.Extraction.add

def add(self, name, size, content):
    if len(self.files) == members:
        os.kill(os.getpid(), signal.SIGKILL)
    unchanged(self, name, size, content)

unpacking.Extraction.add = add
storage_initializer.main(sys.argv[2:])
"""
"""Kills itself after the given number of unpacked members."""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for the termination message."""
    path = tmp_path / "termination-log"
    monkeypatch.setenv("FETCHER_TERMINATION_LOG", str(path))
    return path


class TestArguments:
    @pytest.mark.parametrize("words", [[], [URI], [URI, "a", URI]], ids=["none", "one", "three"])
    def test_arguments_that_are_not_pairs_end_with_usage_and_exit_code_1(self, words: list[str], log: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, *words)
        assert (done.returncode, last_line(done.stderr)) == (1, log.read_text().rstrip("\n"))
        assert last_line(done.stderr).startswith("Usage: storage-initializer SRC DST")

    def test_an_empty_argument_is_refused(self, tmp_path: Path) -> None:
        assert run_command(STORAGE_INITIALIZER, "", tmp_path).returncode == 64

    def test_missing_directories_are_created(self, origin: Origin, tmp_path: Path) -> None:
        assert run_command(STORAGE_INITIALIZER, URI, tmp_path / "mnt" / "models").returncode == 0
        assert tree(tmp_path / "mnt" / "models") == FILES

    def test_help_shows_the_arguments(self) -> None:
        done = run_command(STORAGE_INITIALIZER, "--help")
        assert (done.returncode, "SRC DST" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    "source",
    [
        "https://account.file.core.windows.net/share/model", "https://account.z1.file.storage.azure.net/share/model",
        "hdfs://namenode/model", "webhdfs://namenode/model", "modelscope://org/model", "https://git.example.com/org/model.git",
    ],
)  # fmt: skip
def test_an_unsupported_source_is_refused_before_the_first_fetch(source: str, origin: Origin, tmp_path: Path) -> None:
    done = run_command(STORAGE_INITIALIZER, URI, tmp_path / "first", source, tmp_path / "second")
    assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (64, "UnsupportedScheme:")
    assert "use hf://, s3://, gs://" in done.stderr
    assert not list(tmp_path.iterdir())
    assert not origin.requests


def test_a_cached_model_imports_no_network_modules(origin: Origin, tmp_path: Path) -> None:
    assert run_command(STORAGE_INITIALIZER, URI, tmp_path).returncode == 0
    origin.stop()
    probe = "import sys; from fetcher.dropins.storage_initializer import main; print(main(sys.argv[1:]), *sys.modules)"
    code, *modules = run_command((sys.executable, "-c", probe), URI, tmp_path).stdout.split()
    assert code == "0"
    assert not {"aiohttp", "asyncio", "ssl", "tarfile", "zipfile", "uvloop"} & set(modules)


class TestTerminationMessage:
    def test_the_termination_message_is_the_last_line_of_the_log(self, origin: Origin, tmp_path: Path, log: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, "hf://org/model:absent", tmp_path / "models")
        assert done.returncode == 66
        assert last_line(done.stderr) == log.read_text().rstrip("\n")
        assert log.read_text().startswith("NotFound: the server returned error: 404 for")

    def test_the_termination_message_names_the_directory_of_the_model(self, origin: Origin, tmp_path: Path, log: Path) -> None:
        run_command(STORAGE_INITIALIZER, URI, tmp_path / "models")
        assert log.read_text() == f"Completed: the model is at {tmp_path}/models\n"

    def test_the_termination_message_contains_no_secret(self, origin: Origin, tmp_path: Path, log: Path) -> None:
        origin.faults.add(Fault(Status(403)))
        address = origin.add_file("/model.bin", b"x").replace("://", "://user:pa55word@") + "?Signature=s3cret"
        headers = {"127.0.0.1-headers": '{"Authorization": "Bearer t0ken"}'}
        done = run_command(STORAGE_INITIALIZER, address, tmp_path / "models", env=headers)
        assert done.returncode == 77
        assert not [word for word in ("pa55word", "s3cret", "t0ken") if word in done.stderr + log.read_text()]


class TestExtraHeaders:
    def test_extra_headers_are_sent_only_to_their_origin(self, origin: Origin, tmp_path: Path) -> None:
        """The redirect target has the same host name on another port: another origin."""
        origin.add_file("/elsewhere.bin", b"weights")
        origin.faults.add(Fault(Redirect(f"{origin.cdn_endpoint}/elsewhere.bin"), origin="hub"))
        headers = {"127.0.0.1-headers": '{"x-api-key": "secret"}'}
        done = run_command(STORAGE_INITIALIZER, f"{origin.endpoint}/model.bin", tmp_path / "models", env=headers)
        assert done.returncode == 0, done.stderr
        assert [(each.origin, each.headers.get("x-api-key")) for each in origin.requests] == [("hub", "secret"), ("cdn", None)]

    def test_extra_headers_are_sent_to_addresses_of_the_hub(self, origin: Origin, tmp_path: Path) -> None:
        origin.add_repo("org/private", FILES, private=True, readers=["t0ken"])
        headers = {"127.0.0.1-headers": '{"authorization": "Bearer t0ken"}'}
        address = f"{origin.endpoint}/org/private/resolve/main/config.json"
        assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models", env=headers).returncode == 0
        assert tree(tmp_path / "models") == {"config.json": FILES["config.json"]}

    @pytest.mark.parametrize("name", ["Range", "accept-encoding", "Host"])
    def test_extra_headers_cannot_override_headers_of_the_transport(self, name: str, origin: Origin, tmp_path: Path) -> None:
        address = origin.add_file("/model.bin", b"weights")
        headers = {"127.0.0.1-headers": f'{{"{name}": "bytes=0-1"}}'}
        assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models", env=headers).returncode == 0
        assert tree(tmp_path / "models") == {"model.bin": b"weights"}

    @pytest.mark.parametrize("text", ["nonsense", "[]", '{"name": 1}', '{"na me": "x"}', '{"name": "a\\r\\nb: c"}'])
    def test_invalid_extra_headers_are_refused_without_showing_them(self, text: str, origin: Origin, tmp_path: Path) -> None:
        address = origin.add_file("/model.bin", b"weights")
        done = run_command(STORAGE_INITIALIZER, address, tmp_path / "models", env={"127.0.0.1-headers": text})
        assert (done.returncode, text in done.stderr) == (78, False)
        assert last_line(done.stderr).startswith("Configuration: the variable 127.0.0.1-headers")


class TestAuthorities:
    @pytest.fixture
    def secure(self) -> Iterator[Origin]:
        with Origin(tls=["cdn"]) as running:
            yield running

    def test_authorities_of_the_config_map_are_trusted(self, secure: Origin, tmp_path: Path) -> None:
        (tmp_path / "certs").mkdir()
        (tmp_path / "certs" / "cabundle.crt").write_bytes(secure.ca_file.read_bytes())
        env = {"CA_BUNDLE_CONFIGMAP_NAME": "authorities", "CA_BUNDLE_VOLUME_MOUNT_POINT": str(tmp_path / "certs")}
        address = secure.add_file("/model.bin", b"weights")
        assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models", env=env).returncode == 0

    def test_a_missing_authority_file_causes_a_warning(self, secure: Origin, tmp_path: Path) -> None:
        env = {"CA_BUNDLE_CONFIGMAP_NAME": "authorities", "CA_BUNDLE_VOLUME_MOUNT_POINT": str(tmp_path)}
        done = run_command(STORAGE_INITIALIZER, secure.add_file("/m.bin", b"x"), tmp_path / "models", env=env)
        assert (done.returncode, "it is ignored" in done.stderr) == (69, True)
        assert "certificate verify failed" in last_line(done.stderr)


class TestSeveralPairs:
    def test_several_pairs_are_fetched_concurrently(self, origin: Origin, tmp_path: Path) -> None:
        """The second completes while the first is stalled."""
        origin.add_repo("org/stalled", {"stalled.safetensors": random_bytes("stalled", 2 * MiB)})
        origin.faults.add(Fault(Stall(after=1000), path="stalled.safetensors", origin="cdn"))
        words = ("hf://org/stalled", tmp_path / "first", URI, tmp_path / "second")
        process = started_command(STORAGE_INITIALIZER, *map(str, words))
        try:
            wait_until((tmp_path / "second" / RELATIVE_PATH).exists, "the second model is complete")
            assert process.poll() is None
            assert tree(tmp_path / "first") == {}
        finally:
            end(process)

    def test_several_pairs_can_share_one_directory(self, origin: Origin, tmp_path: Path) -> None:
        adapter = origin.add_file("/adapter.bin", b"weights")
        words = (URI, tmp_path / "models", adapter, tmp_path / "models")
        for _ in range(2):
            assert run_command(STORAGE_INITIALIZER, *words).returncode == 0
            assert tree(tmp_path / "models") == {**FILES, "adapter.bin": b"weights"}

    def test_after_one_pair_fails_the_others_can_be_resumed(self, origin: Origin, tmp_path: Path) -> None:
        words = (URI, tmp_path / "first", "hf://org/model:absent", tmp_path / "second")
        assert run_command(STORAGE_INITIALIZER, *words).returncode == 66
        assert run_command(STORAGE_INITIALIZER, *words[:2]).returncode == 0
        assert tree(tmp_path / "first") == FILES

    def test_each_log_line_of_several_pairs_names_its_directory(self, origin: Origin, tmp_path: Path) -> None:
        done = run_command(STORAGE_INITIALIZER, URI, tmp_path / "first", URI, tmp_path / "second")
        lines = done.stderr.splitlines()
        assert {line.partition(": ")[0] for line in lines} == {str(tmp_path / "first"), str(tmp_path / "second")}


class TestLinks:
    @pytest.fixture
    def claim(self, tmp_path: Path) -> Path:
        directory = tmp_path / "claim"
        directory.mkdir()
        (directory / "model.bin").write_bytes(b"weights")
        return directory

    def test_a_link_to_another_source_is_replaced(self, claim: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "model.bin").write_bytes(b"other")
        for source in (other, claim):
            assert run_command(STORAGE_INITIALIZER, source, tmp_path / "models").returncode == 0
        assert tree(tmp_path / "models") == {"model.bin": f"-> {claim}/model.bin"}

    def test_a_link_never_replaces_a_file(self, claim: Path, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "model.bin").write_bytes(b"somebody's")
        done = run_command(STORAGE_INITIALIZER, claim, tmp_path / "models")
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (73, "CannotWrite:")
        assert tree(tmp_path / "models") == {"model.bin": b"somebody's"}

    def test_an_incomplete_model_is_not_linked(self, origin: Origin, tmp_path: Path) -> None:
        assert run_command(STORAGE_INITIALIZER, URI, tmp_path / "claim").returncode == 0
        os.truncate(tmp_path / "claim" / "model.safetensors", 100)
        done = run_command(STORAGE_INITIALIZER, tmp_path / "claim", tmp_path / "models")
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (65, "DigestMismatch:")
        assert not (tmp_path / "models").exists()


class TestArchives:
    def test_an_unpacked_archive_is_removed_and_stays_cached(self, origin: Origin, tmp_path: Path) -> None:
        address = origin.add_file("/model.tgz", FORMATS["model.tgz"](FILES))
        assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models").returncode == 0
        assert sorted(os.listdir(tmp_path / "models" / ".fetcher")) == ["manifest.json", "summary.json"]
        manifest = Manifest.read(tmp_path / "models" / RELATIVE_PATH)
        assert manifest is not None
        assert manifest.answers(ArtifactRef(address))
        origin.stop()
        assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models").returncode == 0

    def test_the_digest_of_an_archive_is_compared_before_it_is_unpacked(self, origin: Origin, tmp_path: Path) -> None:
        content = FORMATS["model.zip"](FILES)
        address = origin.add_file("/model.zip", content)
        wrong = run_command(STORAGE_INITIALIZER, f"{address}#sha256={'0' * 64}", tmp_path / "models")
        assert (wrong.returncode, tree(tmp_path / "models")) == (65, {})
        right = f"{address}#sha256={hashlib.sha256(content).hexdigest()}"
        env = {"FETCHER_REQUIRE_DIGESTS": "1"}
        assert run_command(STORAGE_INITIALIZER, right, tmp_path / "models", env=env).returncode == 0
        assert tree(tmp_path / "models") == FILES

    @pytest.mark.parametrize("pinned", [True, False])
    def test_files_are_verified_if_their_archive_is(self, pinned: bool, origin: Origin, tmp_path: Path) -> None:
        content = FORMATS["model.zip"](FILES)
        pin = f"#sha256={hashlib.sha256(content).hexdigest()}" if pinned else ""
        address = origin.add_file("/model.zip", content)
        assert run_command(STORAGE_INITIALIZER, f"{address}{pin}", tmp_path / "models").returncode == 0
        manifest = Manifest.read(tmp_path / "models" / RELATIVE_PATH)
        assert manifest is not None
        assert manifest.verified is pinned

    async def test_several_files_are_no_archive(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(b"1")
        source = ArchiveSource(open_source(ArtifactRef(str(tmp_path)), Settings(cache_dir=tmp_path)), "model.tgz")
        with pytest.raises(NotFound, match=r"model\.tgz is not one archive: the source has 2 files there"):
            await source.packing(await source.resolve())
        await source.aclose()

    def test_a_changed_archive_is_unpacked_again_with_refresh_on_change(self, origin: Origin, tmp_path: Path) -> None:
        address = origin.add_file("/model.tar", tar(FILES))
        env = {"FETCHER_REFRESH": "on-change"}
        for files in (FILES, FILES, {"config.json": b"{}", "new.bin": b"new"}):
            origin.add_file("/model.tar", tar(files))
            assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models", env=env).returncode == 0
            assert tree(tmp_path / "models") == files

    def test_unpacked_files_have_the_modes_of_the_volume(self, origin: Origin, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models").chmod(0o2775)
        address = origin.add_file("/model.tar", tar(FILES))
        assert run_command(STORAGE_INITIALIZER, address, tmp_path / "models").returncode == 0
        assert stat.S_IMODE((tmp_path / "models" / "tokenizer" / "vocab.txt").stat().st_mode) == 0o664

    def test_an_archive_fetch_resumes_after_a_kill(self, origin: Origin, tmp_path: Path) -> None:
        content = FORMATS["model.tar"]({**FILES, "more.bin": random_bytes("more", 24 * MiB)})
        address = origin.add_file("/model.tar", content)
        stalling = origin.faults.add(Fault(Stall(after=8 * MiB), origin="cdn"))
        process = started_command(STORAGE_INITIALIZER, address, str(tmp_path / "models"))
        try:
            staging = tmp_path / "models" / ".fetcher"
            wait_until(
                lambda: any(b'"part"' in path.read_bytes() for path in staging.rglob("journal.*")), "a range is journalled"
            )
        finally:
            end(process)
        assert tree(tmp_path / "models") == {}
        origin.faults.remove(stalling)
        done = run_command(STORAGE_INITIALIZER, address, tmp_path / "models")
        assert (done.returncode, " already present and checked" in done.stderr) == (0, True)
        assert {path: tree(tmp_path / "models")[path] for path in FILES} == FILES

    @pytest.mark.parametrize("members", [0, 1, len(FILES) - 1])
    def test_a_kill_during_unpacking_leaves_no_model(self, members: int, origin: Origin, tmp_path: Path) -> None:
        address, models = origin.add_file("/model.tgz", FORMATS["model.tgz"](FILES)), tmp_path / "models"
        victim = (sys.executable, "-c", VICTIM, str(members))
        assert run_command(victim, address, models).returncode == -signal.SIGKILL
        assert tree(models) == {}
        assert not (models / RELATIVE_PATH).exists()
        assert run_command(STORAGE_INITIALIZER, address, models).returncode == 0
        assert tree(models) == FILES
        assert sorted(os.listdir(models / ".fetcher")) == ["manifest.json", "summary.json"]

    def test_two_processes_with_one_volume_unpack_once(self, origin: Origin, tmp_path: Path) -> None:
        origin.throttle(total=4 * MiB)
        address = origin.add_file("/model.tgz", FORMATS["model.tgz"](FILES))
        processes = [started_command(STORAGE_INITIALIZER, address, str(tmp_path / "models")) for _ in range(2)]
        try:
            logs = [process.communicate(timeout=50)[1] for process in processes]
        finally:
            for process in processes:
                end(process)
        assert [process.returncode for process in processes] == [0, 0], logs
        assert sum("files unpacked" in log for log in logs) == 1
        assert tree(tmp_path / "models") == FILES
        assert not (tmp_path / "models/.fetcher/archive").exists()
