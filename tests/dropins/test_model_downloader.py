"""`model-downloader` keeps LLMKube's contract, and what this project promises beyond it."""

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
    """Where LLMKube has the files of `SOURCE`."""
    return tmp_path / "models" / KEY


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setenv("FETCHER_TERMINATION_LOG", str(path))
    return path


def variables(given: Variables) -> dict[str, str]:
    return {name: str(value) for name, value in given.items()}


def download(**given: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command(MODEL_DOWNLOADER, env=variables(given))


def one_file(origin: Origin, cache: Path, name: str = "q4.gguf") -> dict[str, str]:
    """What LLMKube hands over for one file of a repository."""
    source = f"{origin.endpoint}/org/Repo-GGUF/resolve/main/{name}"
    return {"MODEL_SOURCE": source, "CACHE_DIR": str(cache), "MODEL_PATH": str(cache / os.path.basename(name))}


class TestPlaces:
    def test_one_file_of_a_repository(self, repository: Origin, cache: Path) -> None:
        assert download(**one_file(repository, cache)).returncode == 0
        assert tree(cache) == {"q4.gguf": SMALL}

    def test_one_file_out_of_a_directory_under_another_name(self, repository: Origin, cache: Path) -> None:
        given = one_file(repository, cache, "split/q8-00001-of-00002.gguf") | {"MODEL_PATH": str(cache / "model.gguf")}
        assert download(**given).returncode == 0
        assert tree(cache) == {"model.gguf": LARGE}

    def test_a_file_of_any_server(self, origin: Origin, cache: Path) -> None:
        address = origin.add_file("/published.gguf", SMALL)
        assert download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_PATH=cache / "model.gguf").returncode == 0
        assert tree(cache) == {"model.gguf": SMALL}

    def test_a_local_file(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "local.gguf").write_bytes(SMALL)
        done = download(MODEL_SOURCE=f"file://{tmp_path}/local.gguf", CACHE_DIR=cache, MODEL_PATH=cache / "model.gguf")
        assert (done.returncode, tree(cache)) == (0, {"model.gguf": SMALL})

    @pytest.mark.parametrize("source", [SOURCE, "address"])
    def test_several_files_by_their_paths(self, source: str, repository: Origin, cache: Path) -> None:
        if source == "address":
            source = one_file(repository, cache, "split/q8-00001-of-00002.gguf")["MODEL_SOURCE"]
        names = [name for name in FILES if name.startswith("split/")]
        done = download(MODEL_SOURCE=source, CACHE_DIR=cache, MODEL_FILES="\n".join([*names, ""]), MODEL_PATH=cache / names[0])
        assert done.returncode == 0, done.stderr
        assert tree(cache) == {name: FILES[name] for name in names}

    def test_a_whole_repository(self, repository: Origin, cache: Path) -> None:
        assert download(MODEL_SOURCE=SOURCE, CACHE_DIR=cache).returncode == 0
        assert tree(cache) == FILES

    def test_a_path_outside_of_the_cache_directory(self, repository: Origin, cache: Path, tmp_path: Path) -> None:
        given = one_file(repository, cache) | {"MODEL_PATH": str(tmp_path / "elsewhere" / "model.gguf")}
        assert download(**given).returncode == 0
        assert (cache.exists(), tree(tmp_path / "elsewhere")) == (False, {"model.gguf": SMALL})

    def test_the_directory_is_the_one_that_the_fetcher_and_kserve_name(self) -> None:
        assert run_fetcher("key", SOURCE).stdout == f"{KEY}\n"

    def test_selections_of_one_source_stand_in_one_directory(self, repository: Origin, cache: Path) -> None:
        """Their key knows no selection. Neither takes the other's files away, and both need no network any more."""
        selections = [one_file(repository, cache), one_file(repository, cache, "split/q8-00001-of-00002.gguf")]
        for given in selections:
            assert download(**given).returncode == 0
        repository.stop()
        for given in selections:
            assert download(**given).returncode == 0
        assert tree(cache) == {"q4.gguf": SMALL, "q8-00001-of-00002.gguf": LARGE}
        listed = run_fetcher("list", "--cache-dir", cache.parent).stdout.splitlines()
        assert len(listed) == 2
        assert run_fetcher("verify", "--cache-dir", cache.parent).returncode == 0


class TestMisuse:
    @pytest.mark.parametrize(
        ("given", "code", "says"),
        [
            ({}, 78, "Configuration: MODEL_SOURCE is not set"),
            ({"MODEL_SOURCE": SOURCE}, 78, "Configuration: neither CACHE_DIR nor MODEL_PATH"),
            ({"MODEL_SOURCE": "s3://bucket/key", "CACHE_DIR": "/c"}, 64, "UnsupportedScheme: s3:// is reserved"),
            ({"MODEL_SOURCE": "pvc://claim/m", "CACHE_DIR": "/c"}, 78, "Configuration: MODEL_SOURCE is a pvc:// address"),
            ({"MODEL_SOURCE": SOURCE, "CACHE_DIR": "/c", "MODEL_SHA256": "0" * 64}, 78, "Configuration: MODEL_SHA256"),
            ({"MODEL_SOURCE": SOURCE, "MODEL_PATH": "/c/m", "MODEL_SHA256": "short"}, 64, "Usage: not a digest"),
            ({"MODEL_SOURCE": SOURCE, "CACHE_DIR": "/c", "MODEL_REFRESH_POLICY": "Never"}, 78, "Configuration: MODEL_REFRESH"),
            ({"MODEL_SOURCE": "http://host/m", "CACHE_DIR": "/c", "MODEL_FILES": "a\nb"}, 78, "Configuration: MODEL_FILES"),
        ],
    )  # fmt: skip
    def test_is_told_in_the_termination_message(self, given: dict[str, str], code: int, says: str, log: Path) -> None:
        done = download(**given)
        assert (done.returncode, last_line(done.stderr)) == (code, log.read_text().rstrip("\n"))
        assert log.read_text().startswith(says)

    def test_a_name_that_leads_elsewhere_is_refused(self, repository: Origin, cache: Path) -> None:
        done = download(**one_file(repository, cache) | {"MODEL_PATH": f"{cache}/../model.gguf"})
        assert (done.returncode, last_line(done.stderr).partition(" ")[0]) == (65, "HostilePath:")


class TestDigest:
    def test_that_fits(self, origin: Origin, cache: Path) -> None:
        address = origin.add_file("/model.gguf", SMALL)
        digest = hashlib.sha256(SMALL).hexdigest().upper()
        done = download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_PATH=cache / "m.gguf", MODEL_SHA256=digest)
        assert (done.returncode, "every digest verified" in done.stderr) == (0, True)

    def test_that_does_not_fit_leaves_nothing_visible(self, origin: Origin, cache: Path, log: Path) -> None:
        address = origin.add_file("/model.gguf", SMALL)
        done = download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_PATH=cache / "m.gguf", MODEL_SHA256="0" * 64)
        assert (done.returncode, tree(cache)) == (65, {})
        assert log.read_text().startswith("DigestMismatch: m.gguf")

    def test_that_is_given_later_is_not_answered_by_what_was_never_compared(self, origin: Origin, cache: Path) -> None:
        given = {
            "MODEL_SOURCE": origin.add_file("/model.gguf", SMALL),
            "CACHE_DIR": str(cache),
            "MODEL_PATH": str(cache / "m.gguf"),
        }
        assert download(**given).returncode == 0
        assert download(**given, MODEL_SHA256="0" * 64).returncode == 65
        assert download(**given, MODEL_SHA256=hashlib.sha256(SMALL).hexdigest()).returncode == 0

    def test_of_the_first_of_several_files(self, repository: Origin, cache: Path) -> None:
        names = [name for name in FILES if name.startswith("split/")]
        given = {
            "MODEL_SOURCE": SOURCE,
            "CACHE_DIR": str(cache),
            "MODEL_FILES": "\n".join(names),
            "MODEL_PATH": str(cache / names[0]),
        }
        assert download(**given, MODEL_SHA256=hashlib.sha256(SMALL).hexdigest()).returncode == 65
        assert download(**given, MODEL_SHA256=hashlib.sha256(LARGE).hexdigest()).returncode == 0

    def test_that_the_hub_publishes_needs_no_pin(self, repository: Origin, cache: Path) -> None:
        repository.faults.add(Fault(FlipBit(1000), origin="cdn"))
        assert download(**one_file(repository, cache)).returncode == 65
        assert tree(cache) == {}


class TestRefreshPolicy:
    @pytest.fixture
    def address(self, origin: Origin) -> str:
        return origin.add_file("/model.gguf", SMALL)

    def test_if_not_present_asks_nobody(self, address: str, origin: Origin, cache: Path) -> None:
        given = {"MODEL_SOURCE": address, "CACHE_DIR": str(cache), "MODEL_REFRESH_POLICY": "IfNotPresent"}
        assert download(**given).returncode == 0
        origin.clear_requests()
        assert (download(**given).returncode, origin.requests) == (0, ())

    def test_on_change_takes_what_is_new(self, address: str, origin: Origin, cache: Path) -> None:
        """Also what has the size of the old one, which theirs takes for unchanged."""
        given = {"MODEL_SOURCE": address, "CACHE_DIR": str(cache), "MODEL_REFRESH_POLICY": "OnChange"}
        for content in (SMALL, SMALL, random_bytes("other", len(SMALL))):
            origin.add_file("/model.gguf", content)
            assert download(**given).returncode == 0
            assert tree(cache) == {"model.gguf": content}

    @pytest.mark.parametrize("status", [None, 401, 404, 429, 503])
    def test_on_change_keeps_the_copy_when_nobody_can_be_asked(
        self, address: str, origin: Origin, cache: Path, status: int | None
    ) -> None:
        given = {"MODEL_SOURCE": address, "CACHE_DIR": str(cache), "MODEL_REFRESH_POLICY": "OnChange"}
        assert download(**given).returncode == 0
        if status is None:
            origin.stop()
        else:
            origin.faults.add(Fault(Status(status)))
        done = download(**given)
        assert (done.returncode, tree(cache)) == (0, {"model.gguf": SMALL})
        assert "keeping the existing copy" in done.stderr

    def test_on_change_without_a_copy_fails(self, address: str, origin: Origin, cache: Path) -> None:
        origin.stop()
        assert download(MODEL_SOURCE=address, CACHE_DIR=cache, MODEL_REFRESH_POLICY="OnChange").returncode == 69


def test_metrics_are_left_in_a_file(repository: Origin, cache: Path, tmp_path: Path) -> None:
    given = one_file(repository, cache) | {"FETCHER_METRICS_FILE": str(tmp_path / "metrics.prom")}
    assert download(**given).returncode == 0
    assert f"fetcher_expected_bytes {len(SMALL)}\n" in (tmp_path / "metrics.prom").read_text()


class TestTwoReplicas:
    """On one volume, started at once: theirs publish a truncated file."""

    @pytest.fixture
    def start(self) -> Iterator[Callable[[Variables], subprocess.Popen[str]]]:
        processes: list[subprocess.Popen[str]] = []

        def start(given: Variables) -> subprocess.Popen[str]:
            processes.append(started_command(MODEL_DOWNLOADER, env=variables(given)))
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

    def test_download_once_and_never_show_a_part(
        self, slow: dict[str, str], start: Callable[[Variables], subprocess.Popen[str]], origin: Origin, cache: Path
    ) -> None:
        replicas = [start(slow), start(slow)]
        while any(replica.poll() is None for replica in replicas):
            assert tree(cache) in ({}, {"m.gguf": self.content})
        assert [replica.returncode for replica in replicas] == [0, 0]
        assert tree(cache) == {"m.gguf": self.content}
        ranges = [each.byte_range for each in origin.requests if each.byte_range and each.byte_range.start > 0]
        assert len(ranges) == len(set(ranges)), "no range was fetched twice"

    def test_of_which_one_is_killed_the_other_goes_on_where_it_was(
        self, slow: dict[str, str], start: Callable[[Variables], subprocess.Popen[str]], cache: Path
    ) -> None:
        first = start(slow)
        wait_until(lambda: self.received(cache), "the first one has received something")
        second = start(slow)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert tree(cache) == {}
        _, stderr = second.communicate(timeout=50)
        assert (second.returncode, tree(cache)) == (0, {"m.gguf": self.content}), stderr
        assert "left unfinished" in stderr
        assert "were here" in stderr, "what the first one had received was not fetched again"

    def test_ended_in_order_leave_what_they_have(
        self, slow: dict[str, str], start: Callable[[Variables], subprocess.Popen[str]], cache: Path, log: Path
    ) -> None:
        replica = start(slow)
        wait_until(lambda: self.received(cache), "it has received something")
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
"""What a script of theirs does by the contract with its operator; written for these tests, not taken from them."""


class TestBesideTheirScript:
    def their_script(self, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return run_command(["sh", "-c", SCRIPT], env=given)

    def test_what_was_staged_before_is_cached_to_it(self, repository: Origin, cache: Path) -> None:
        given = one_file(repository, cache)
        assert download(**given).returncode == 0
        repository.stop()
        done = self.their_script(given)
        assert (done.returncode, done.stdout, tree(cache)) == (0, "already cached\n", {"q4.gguf": SMALL})

    def test_a_stage_of_the_whole_directory_by_the_fetcher_is_too(self, repository: Origin, cache: Path) -> None:
        assert run_fetcher("fetch", SOURCE, "--include", "*.gguf", "--dest", cache).returncode == 0
        repository.stop()
        assert self.their_script(one_file(repository, cache)).stdout == "already cached\n"

    def test_a_truncated_file_that_it_left_is_replaced(self, repository: Origin, cache: Path) -> None:
        given = one_file(repository, cache)
        cache.mkdir(parents=True)
        (cache / "q4.gguf").write_bytes(SMALL[:1000])
        assert download(**given).returncode == 0
        assert tree(cache) == {"q4.gguf": SMALL}

    def test_a_good_file_that_it_left_is_kept(self, repository: Origin, cache: Path) -> None:
        given = one_file(repository, cache)
        cache.mkdir(parents=True)
        (cache / "q4.gguf").write_bytes(SMALL)
        inode = (cache / "q4.gguf").stat().st_ino
        assert download(**given).returncode == 0
        assert (cache / "q4.gguf").stat().st_ino == inode
        assert not [request for request in repository.requests if request.origin == "cdn"]


class TestPhrases:
    """The operator classifies by words in the termination message."""

    @pytest.mark.parametrize(
        ("status", "code", "phrase"),
        [(401, 77, "returned error: 401"), (403, 77, "returned error: 403"), (404, 66, "returned error: 404")],
    )
    def test_of_a_status(self, status: int, code: int, phrase: str, origin: Origin, cache: Path, log: Path) -> None:
        origin.faults.add(Fault(Status(status)))
        done = download(MODEL_SOURCE=origin.add_file("/m.gguf", SMALL), CACHE_DIR=cache)
        assert (done.returncode, phrase in log.read_text()) == (code, True)

    def test_of_a_file_that_the_repository_lacks(self, repository: Origin, cache: Path, log: Path) -> None:
        assert download(MODEL_SOURCE=SOURCE, CACHE_DIR=cache, MODEL_PATH=cache / "absent.gguf").returncode == 66
        assert "returned error: 404" in log.read_text()

    def test_of_a_server_that_is_not_there(self, cache: Path, log: Path) -> None:
        done = download(MODEL_SOURCE="http://127.0.0.1:1/m.gguf", CACHE_DIR=cache, FETCHER_RETRY_FOR="0")
        assert (done.returncode, "failed to connect to" in log.read_text(), "connection refused" in log.read_text()) == (
            69,
            True,
            True,
        )

    def test_of_a_name_that_does_not_resolve(self, cache: Path, log: Path) -> None:
        done = download(MODEL_SOURCE="http://nothing.invalid/m.gguf", CACHE_DIR=cache, FETCHER_RETRY_FOR="0")
        assert (done.returncode, "could not resolve host" in log.read_text()) == (69, True)

    def test_of_a_connection_on_which_nothing_comes(self, origin: Origin, cache: Path, log: Path) -> None:
        origin.faults.add(Fault(Stall(after=1000)))
        done = download(MODEL_SOURCE=origin.add_file("/m.gguf", SMALL), CACHE_DIR=cache, FETCHER_TIMEOUT_STALL="0.5")
        assert (done.returncode, "connection timed out" in log.read_text()) == (69, True)

    def test_of_a_certificate_that_nobody_vouches_for(self, cache: Path, log: Path) -> None:
        with Origin(tls=["cdn"]) as secure:
            address = secure.add_file("/m.gguf", SMALL)
            assert download(MODEL_SOURCE=address, CACHE_DIR=cache).returncode == 69
            assert "certificate verify failed" in log.read_text()
            assert download(MODEL_SOURCE=address, CACHE_DIR=cache, CURL_CA_BUNDLE=secure.ca_file).returncode == 0

    def test_of_a_volume_that_is_full(self, origin: Origin, small_filesystem: MakeFilesystem, log: Path) -> None:
        full = small_filesystem("tmpfs", size=MiB)
        done = download(MODEL_SOURCE=origin.add_file("/m.gguf", LARGE), CACHE_DIR=full.path / KEY)
        assert (done.returncode, "no space left on device" in log.read_text()) == (73, True)

    def test_are_all_played_here(self) -> None:
        source = Path(__file__).read_text()
        assert not [phrase for _, phrases in PHRASES for phrase in phrases if source.count(phrase) < 1]
