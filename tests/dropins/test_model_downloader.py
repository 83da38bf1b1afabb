"""`model-downloader` keeps LLMKube's contract and this project's own promises."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.dropins.model_downloader import PHRASES
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import FlipBit, Status
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Stall
from fetcher.testing.origin import Origin
from tests.dropins.conftest import MiB, last_line, tree
from tests.lab.command import MODEL_DOWNLOADER, end, run_command, run_fetcher, started_command
from tests.lab.fixtures import MakeFilesystem
from tests.lab.waiting import wait_until

SOURCE = "hf://org/Repo-GGUF"
KEY = ArtifactRef(SOURCE).key
SMALL, LARGE = random_bytes("q4", 2 * MiB + 3), random_bytes("q8", 3 * MiB)
FILES = {
    "q4.gguf": SMALL,
    "split/q8-00001-of-00002.gguf": LARGE,
    "split/q8-00002-of-00002.gguf": SMALL,
    "README.md": b"# GGUF\n",
}
Variables = Mapping[str, str | Path]


@pytest.fixture
def repository(origin: Origin) -> Origin:
    origin.add_repo("org/Repo-GGUF", FILES)
    return origin


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """LLMKube's directory for the files of `SOURCE`."""
    return tmp_path / "models" / KEY


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setenv("FETCHER_TERMINATION_LOG", str(path))
    return path


def variables(env: Variables) -> dict[str, str]:
    return {name: str(value) for name, value in env.items()}


def download(**env: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command(MODEL_DOWNLOADER, env=variables(env))


def one_file(origin: Origin, cache: Path, name: str = "q4.gguf") -> dict[str, str]:
    """Return the variables that LLMKube sets for one file of a repository."""
    source = f"{origin.endpoint}/org/Repo-GGUF/resolve/main/{name}"
    return {"MODEL_SOURCE": source, "CACHE_DIR": str(cache), "MODEL_PATH": str(cache / os.path.basename(name))}


class TestPlaces:
    def test_one_file_of_a_repository_is_downloaded(self, repository: Origin, cache: Path) -> None:
        assert download(**one_file(repository, cache)).returncode == 0
        assert tree(cache) == {"q4.gguf": SMALL}

    def test_a_file_in_a_directory_gets_the_name_of_model_path(self, repository: Origin, cache: Path) -> None:
        env = one_file(repository, cache, "split/q8-00001-of-00002.gguf") | {"MODEL_PATH": str(cache / "model.gguf")}
        assert download(**env).returncode == 0
        assert tree(cache) == {"model.gguf": LARGE}

    def test_a_file_of_any_server_is_downloaded(self, origin: Origin, cache: Path) -> None:
        address = origin.add_file("/published.gguf", SMALL)
        assert download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_PATH=cache / "model.gguf").returncode == 0
        assert tree(cache) == {"model.gguf": SMALL}

    def test_a_local_file_is_placed(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "local.gguf").write_bytes(SMALL)
        done = download(MODEL_SOURCE=f"file://{tmp_path}/local.gguf", CACHE_DIR=cache, MODEL_PATH=cache / "model.gguf")
        assert (done.returncode, tree(cache)) == (0, {"model.gguf": SMALL})

    @pytest.mark.parametrize("source", [SOURCE, "address"])
    def test_several_files_keep_their_paths(self, source: str, repository: Origin, cache: Path) -> None:
        if source == "address":
            source = one_file(repository, cache, "split/q8-00001-of-00002.gguf")["MODEL_SOURCE"]
        names = [name for name in FILES if name.startswith("split/")]
        done = download(MODEL_SOURCE=source, CACHE_DIR=cache, MODEL_FILES="\n".join([*names, ""]), MODEL_PATH=cache / names[0])
        assert done.returncode == 0, done.stderr
        assert tree(cache) == {name: FILES[name] for name in names}

    def test_a_whole_repository_is_downloaded(self, repository: Origin, cache: Path) -> None:
        assert download(MODEL_SOURCE=SOURCE, CACHE_DIR=cache).returncode == 0
        assert tree(cache) == FILES

    def test_model_path_can_be_outside_the_cache_directory(self, repository: Origin, cache: Path, tmp_path: Path) -> None:
        env = one_file(repository, cache) | {"MODEL_PATH": str(tmp_path / "elsewhere" / "model.gguf")}
        assert download(**env).returncode == 0
        assert (cache.exists(), tree(tmp_path / "elsewhere")) == (False, {"model.gguf": SMALL})

    def test_the_cache_directory_has_the_key_of_the_fetcher(self) -> None:
        assert run_fetcher("key", SOURCE).stdout == f"{KEY}\n"

    def test_selections_of_one_source_share_one_directory(self, repository: Origin, cache: Path) -> None:
        """LLMKube's key has no selection. Each keeps the other's files, and both are cached."""
        selections = [one_file(repository, cache), one_file(repository, cache, "split/q8-00001-of-00002.gguf")]
        for env in selections:
            assert download(**env).returncode == 0
        repository.stop()
        for env in selections:
            assert download(**env).returncode == 0
        assert tree(cache) == {"q4.gguf": SMALL, "q8-00001-of-00002.gguf": LARGE}
        listed = run_fetcher("list", "--cache-dir", cache.parent).stdout.splitlines()
        assert len(listed) == 2
        assert run_fetcher("verify", "--cache-dir", cache.parent).returncode == 0


class TestMisuse:
    @pytest.mark.parametrize(
        ("env", "code", "message"),
        [
            ({}, 78, "Configuration: MODEL_SOURCE is not set"),
            ({"MODEL_SOURCE": SOURCE}, 78, "Configuration: neither CACHE_DIR nor MODEL_PATH"),
            ({"MODEL_SOURCE": "hdfs://host/key", "CACHE_DIR": "/c"}, 64, "UnsupportedScheme: hdfs:// is not supported"),
            ({"MODEL_SOURCE": "pvc://claim/m", "CACHE_DIR": "/c"}, 78, "Configuration: MODEL_SOURCE is a pvc:// address"),
            ({"MODEL_SOURCE": SOURCE, "CACHE_DIR": "/c", "MODEL_SHA256": "0" * 64}, 78, "Configuration: MODEL_SHA256"),
            ({"MODEL_SOURCE": SOURCE, "MODEL_PATH": "/c/m", "MODEL_SHA256": "short"}, 64, "Usage: sha256:short is not"),
            ({"MODEL_SOURCE": SOURCE, "CACHE_DIR": "/c", "MODEL_REFRESH_POLICY": "Never"}, 78, "Configuration: MODEL_REFRESH"),
            ({"MODEL_SOURCE": "http://host/m", "CACHE_DIR": "/c", "MODEL_FILES": "a\nb"}, 78, "Configuration: MODEL_FILES"),
        ],
    )  # fmt: skip
    def test_the_termination_message_explains_it(self, env: dict[str, str], code: int, message: str, log: Path) -> None:
        done = download(**env)
        assert (done.returncode, last_line(done.stderr)) == (code, log.read_text().rstrip("\n"))
        assert log.read_text().startswith(message)

    def test_a_path_with_parent_directories_is_refused(self, repository: Origin, cache: Path) -> None:
        done = download(**one_file(repository, cache) | {"MODEL_PATH": f"{cache}/../model.gguf"})
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (65, "HostilePath:")


class TestDigest:
    def test_a_correct_digest_is_verified(self, origin: Origin, cache: Path) -> None:
        address = origin.add_file("/model.gguf", SMALL)
        digest = hashlib.sha256(SMALL).hexdigest().upper()
        done = download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_PATH=cache / "m.gguf", MODEL_SHA256=digest)
        assert (done.returncode, "every digest verified" in done.stderr) == (0, True)

    def test_a_wrong_digest_leaves_nothing_visible(self, origin: Origin, cache: Path, log: Path) -> None:
        address = origin.add_file("/model.gguf", SMALL)
        done = download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_PATH=cache / "m.gguf", MODEL_SHA256="0" * 64)
        assert (done.returncode, tree(cache)) == (65, {})
        assert log.read_text().startswith("DigestMismatch: m.gguf")

    def test_a_digest_that_is_added_later_is_compared_with_the_cached_file(self, origin: Origin, cache: Path) -> None:
        env = {
            "MODEL_SOURCE": origin.add_file("/model.gguf", SMALL),
            "CACHE_DIR": str(cache),
            "MODEL_PATH": str(cache / "m.gguf"),
        }
        assert download(**env).returncode == 0
        assert download(**env, MODEL_SHA256="0" * 64).returncode == 65
        assert download(**env, MODEL_SHA256=hashlib.sha256(SMALL).hexdigest()).returncode == 0

    def test_the_digest_applies_to_the_file_of_model_path(self, repository: Origin, cache: Path) -> None:
        names = [name for name in FILES if name.startswith("split/")]
        env = {
            "MODEL_SOURCE": SOURCE,
            "CACHE_DIR": str(cache),
            "MODEL_FILES": "\n".join(names),
            "MODEL_PATH": str(cache / names[0]),
        }
        assert download(**env, MODEL_SHA256=hashlib.sha256(SMALL).hexdigest()).returncode == 65
        assert download(**env, MODEL_SHA256=hashlib.sha256(LARGE).hexdigest()).returncode == 0

    def test_the_digest_published_by_the_hub_is_compared(self, repository: Origin, cache: Path) -> None:
        repository.faults.add(Fault(FlipBit(1000), origin="cdn"))
        assert download(**one_file(repository, cache)).returncode == 65
        assert tree(cache) == {}


class TestRefreshPolicy:
    @pytest.fixture
    def address(self, origin: Origin) -> str:
        return origin.add_file("/model.gguf", SMALL)

    def test_if_not_present_sends_no_request(self, address: str, origin: Origin, cache: Path) -> None:
        env = {"MODEL_SOURCE": address, "CACHE_DIR": str(cache), "MODEL_REFRESH_POLICY": "IfNotPresent"}
        assert download(**env).returncode == 0
        origin.clear_requests()
        assert (download(**env).returncode, origin.requests) == (0, ())

    def test_on_change_downloads_changed_content(self, address: str, origin: Origin, cache: Path) -> None:
        """Even with an unchanged size, which LLMKube's downloader treats as unchanged content."""
        env = {"MODEL_SOURCE": address, "CACHE_DIR": str(cache), "MODEL_REFRESH_POLICY": "OnChange"}
        for content in (SMALL, SMALL, random_bytes("other", len(SMALL))):
            origin.add_file("/model.gguf", content)
            assert download(**env).returncode == 0
            assert tree(cache) == {"model.gguf": content}

    @pytest.mark.parametrize("status", [None, 401, 404, 429, 503])
    def test_on_change_keeps_the_copy_if_the_source_is_unavailable(
        self, address: str, origin: Origin, cache: Path, status: int | None
    ) -> None:
        env = {"MODEL_SOURCE": address, "CACHE_DIR": str(cache), "MODEL_REFRESH_POLICY": "OnChange"}
        assert download(**env).returncode == 0
        if status is None:
            origin.stop()
        else:
            origin.faults.add(Fault(Status(status)))
        done = download(**env)
        assert (done.returncode, tree(cache)) == (0, {"model.gguf": SMALL})
        assert "keeping the existing copy" in done.stderr

    def test_on_change_without_a_copy_fails(self, address: str, origin: Origin, cache: Path) -> None:
        origin.stop()
        assert download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_REFRESH_POLICY="OnChange").returncode == 69


def test_metrics_are_written_to_a_file(repository: Origin, cache: Path, tmp_path: Path) -> None:
    env = one_file(repository, cache) | {"FETCHER_METRICS_FILE": str(tmp_path / "metrics.prom")}
    assert download(**env).returncode == 0
    assert f"fetcher_expected_bytes {len(SMALL)}\n" in (tmp_path / "metrics.prom").read_text()


class TestTwoReplicas:
    """Two replicas start together on one volume. With LLMKube's downloader they publish a truncated file."""

    @pytest.fixture
    def start(self) -> Iterator[Callable[[Variables], subprocess.Popen[str]]]:
        processes: list[subprocess.Popen[str]] = []

        def start(env: Variables) -> subprocess.Popen[str]:
            processes.append(started_command(MODEL_DOWNLOADER, env=variables(env)))
            return processes[-1]

        yield start
        for process in processes:
            end(process)

    @pytest.fixture
    def slow(self, origin: Origin, cache: Path) -> dict[str, str]:
        self.content = random_bytes("replicas", 12 * MiB)
        origin.throttle(total=8 * MiB)
        address = origin.add_file("/model.gguf", self.content)
        return {
            "MODEL_SOURCE": address,
            "CACHE_DIR": str(cache),
            "MODEL_PATH": str(cache / "m.gguf"),
            "FETCHER_RETRY_FOR": "30",
        }

    def received(self, cache: Path) -> bool:
        return any(b'"part"' in path.read_bytes() for path in cache.rglob("journal.*"))

    def test_two_replicas_download_once_and_never_show_a_partial_file(
        self, slow: dict[str, str], start: Callable[[Variables], subprocess.Popen[str]], origin: Origin, cache: Path
    ) -> None:
        replicas = [start(slow), start(slow)]
        while any(replica.poll() is None for replica in replicas):
            assert tree(cache) in ({}, {"m.gguf": self.content})
        assert [replica.returncode for replica in replicas] == [0, 0]
        assert tree(cache) == {"m.gguf": self.content}
        ranges = [each.byte_range for each in origin.requests if each.byte_range and each.byte_range.start > 0]
        assert len(ranges) == len(set(ranges)), "no range was fetched twice"

    def test_a_replica_resumes_the_download_of_a_killed_one(
        self, slow: dict[str, str], start: Callable[[Variables], subprocess.Popen[str]], cache: Path
    ) -> None:
        first = start(slow)
        wait_until(lambda: self.received(cache), "the first replica has received data")
        second = start(slow)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert tree(cache) == {}
        _, stderr = second.communicate(timeout=50)
        assert (second.returncode, tree(cache)) == (0, {"m.gguf": self.content}), stderr
        assert "continuing the unfinished fetch" in stderr
        assert " reused; " in stderr, "the data of the first replica was not fetched again"

    def test_a_terminated_replica_keeps_its_staging(
        self, slow: dict[str, str], start: Callable[[Variables], subprocess.Popen[str]], cache: Path, log: Path
    ) -> None:
        replica = start(slow)
        wait_until(lambda: self.received(cache), "the replica has received data")
        replica.send_signal(signal.SIGTERM)
        replica.communicate(timeout=10)
        assert (replica.returncode, tree(cache)) == (128 + signal.SIGTERM, {})
        assert log.read_text().startswith("Interrupted: SIGTERM received; staging is kept")


SCRIPT = """\
set -e
if [ -f "$MODEL_PATH" ]; then echo "already cached"; exit 0; fi
mkdir -p "$CACHE_DIR"
curl --fail --silent --show-error --location --output "$MODEL_PATH.tmp" "$MODEL_SOURCE"
mv "$MODEL_PATH.tmp" "$MODEL_PATH"
"""
"""A downloader that follows the contract of LLMKube's operator, written for these tests."""


class TestWithLlmkubesScript:
    def their_script(self, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return run_command(["sh", "-c", SCRIPT], env=env)

    def test_the_script_accepts_a_file_of_model_downloader(self, repository: Origin, cache: Path) -> None:
        env = one_file(repository, cache)
        assert download(**env).returncode == 0
        repository.stop()
        done = self.their_script(env)
        assert (done.returncode, done.stdout, tree(cache)) == (0, "already cached\n", {"q4.gguf": SMALL})

    def test_the_script_accepts_a_directory_of_the_fetcher(self, repository: Origin, cache: Path) -> None:
        assert run_fetcher("fetch", SOURCE, "--include", "*.gguf", "--dest", cache).returncode == 0
        repository.stop()
        assert self.their_script(one_file(repository, cache)).stdout == "already cached\n"

    def test_a_truncated_file_of_the_script_is_replaced(self, repository: Origin, cache: Path) -> None:
        env = one_file(repository, cache)
        cache.mkdir(parents=True)
        (cache / "q4.gguf").write_bytes(SMALL[:1000])
        assert download(**env).returncode == 0
        assert tree(cache) == {"q4.gguf": SMALL}

    def test_a_complete_file_of_the_script_is_kept(self, repository: Origin, cache: Path) -> None:
        env = one_file(repository, cache)
        cache.mkdir(parents=True)
        (cache / "q4.gguf").write_bytes(SMALL)
        inode = (cache / "q4.gguf").stat().st_ino
        assert download(**env).returncode == 0
        assert (cache / "q4.gguf").stat().st_ino == inode
        assert not [request for request in repository.requests if request.origin == "cdn"]


class TestPhrases:
    """The operator recognizes a reason by phrases in the termination message."""

    @pytest.mark.parametrize(
        ("status", "code", "phrase"),
        [(401, 77, "returned error: 401"), (403, 77, "returned error: 403"), (404, 66, "returned error: 404")],
    )
    def test_a_status_has_its_phrase(self, status: int, code: int, phrase: str, origin: Origin, cache: Path, log: Path) -> None:
        origin.faults.add(Fault(Status(status)))
        done = download(MODEL_SOURCE=origin.add_file("/m.gguf", SMALL), CACHE_DIR=cache)
        assert (done.returncode, phrase in log.read_text()) == (code, True)

    def test_a_missing_file_has_the_phrase_of_404(self, repository: Origin, cache: Path, log: Path) -> None:
        assert download(MODEL_SOURCE=SOURCE, CACHE_DIR=cache, MODEL_PATH=cache / "absent.gguf").returncode == 66
        assert "returned error: 404" in log.read_text()

    def test_a_refused_connection_has_its_phrase(self, cache: Path, log: Path) -> None:
        done = download(MODEL_SOURCE="http://127.0.0.1:1/m.gguf", CACHE_DIR=cache, FETCHER_RETRY_FOR="0")
        assert (done.returncode, "failed to connect to" in log.read_text(), "connection refused" in log.read_text()) == (
            69,
            True,
            True,
        )

    def test_an_unknown_host_has_its_phrase(self, cache: Path, log: Path) -> None:
        done = download(MODEL_SOURCE="http://nothing.invalid/m.gguf", CACHE_DIR=cache, FETCHER_RETRY_FOR="0")
        assert (done.returncode, "could not resolve host" in log.read_text()) == (69, True)

    def test_a_stalled_connection_has_its_phrase(self, origin: Origin, cache: Path, log: Path) -> None:
        origin.faults.add(Fault(Stall(after=1000)))
        done = download(MODEL_SOURCE=origin.add_file("/m.gguf", SMALL), CACHE_DIR=cache, FETCHER_TIMEOUT_STALL="0.5")
        assert (done.returncode, "connection timed out" in log.read_text()) == (69, True)

    def test_an_untrusted_certificate_has_its_phrase(self, cache: Path, log: Path) -> None:
        with Origin(tls=["cdn"]) as secure:
            address = secure.add_file("/m.gguf", SMALL)
            assert download(MODEL_SOURCE=address, CACHE_DIR=cache).returncode == 69
            assert "certificate verify failed" in log.read_text()
            assert download(MODEL_SOURCE=address, CACHE_DIR=cache, CURL_CA_BUNDLE=secure.ca_file).returncode == 0

    def test_a_full_volume_has_its_phrase(self, origin: Origin, small_filesystem: MakeFilesystem, log: Path) -> None:
        full = small_filesystem("tmpfs", size=MiB)
        done = download(MODEL_SOURCE=origin.add_file("/m.gguf", LARGE), CACHE_DIR=full.path / KEY)
        assert (done.returncode, "no space left on device" in log.read_text()) == (73, True)

    def test_every_phrase_has_a_test(self) -> None:
        source = Path(__file__).read_text()
        assert not [phrase for _, phrases in PHRASES for phrase in phrases if source.count(phrase) < 1]
