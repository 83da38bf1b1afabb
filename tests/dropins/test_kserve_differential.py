"""Compare KServe's package with ours on the same sources, each in a separate process: equal results and intended differences.

KServe's package is called like the entry point of its image. Its metadata (`.cache/huggingface`) and ours (`.fetcher`) are not
compared. KServe has one exit code for all failures. We have several, and ours is zero exactly if KServe's is. The exceptions
are listed below, each with its reason.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.effects import FlipBit, Header
from fetcher.testing.faults import Fault
from fetcher.testing.interruptions import Finish
from fetcher.testing.origin import Origin
from tests.dropins.archives import FORMATS, regular, special, tar_of, zipped
from tests.dropins.conftest import FILES, last_line, tree
from tests.lab.command import STORAGE_INITIALIZER, run_command

pytestmark = pytest.mark.timeout(600)  # the first test installs KServe's package
TOKEN = "hf_given"
COMPRESSED = gzip.compress(b"weights", mtime=0)


@dataclass(frozen=True, slots=True)
class Situation:
    """The input of both: sources, with one directory each, and variables. `before`: files that each directory already has."""

    sources: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, bytes] = field(default_factory=dict)
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one of them: exit code, a tree for each source, log."""

    code: int
    trees: list[dict[str, bytes | str]]
    log: str


Make = Callable[[Origin, Path], Situation]


def outcome(command: Sequence[str], situation: Situation, place: Path) -> Outcome:
    directories = [place / str(number) for number in range(len(situation.sources))]
    for directory in directories:
        for path, content in situation.before.items():
            directory.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
    words = [str(word) for pair in zip(situation.sources, directories, strict=True) for word in pair]
    done = run_command(command, *words, env=situation.env)
    for _ in range(situation.runs - 1):
        done = run_command(command, *words, env=situation.env)
    return Outcome(done.returncode, [tree(directory) for directory in directories], done.stderr)


@pytest.fixture
def both(kserve_command: tuple[str, ...], origin: Origin, tmp_path: Path) -> Callable[[Make], tuple[Outcome, Outcome]]:
    def run(make: Make) -> tuple[Outcome, Outcome]:
        """Return the outcomes of KServe and of ours."""
        situation = make(origin, tmp_path)
        kserve = outcome(kserve_command, situation, tmp_path / "kserve")
        return kserve, outcome(STORAGE_INITIALIZER, situation, tmp_path / "ours")

    return run


Both = Callable[[Make], tuple[Outcome, Outcome]]


def served(origin: Origin, name: str, content: bytes, content_type: str | None = None) -> str:
    """Serve a file and return its address."""
    if content_type:
        origin.faults.add(Fault(Header("Content-Type", content_type), path=name.replace(".", r"\.") + "$"))
    return origin.add_file(f"/files/{name}", content)


def archive(name: str) -> Make:
    def make(origin: Origin, _: Path) -> Situation:
        kind = "application/zip" if name.endswith(".zip") else "application/x-tar"
        return Situation([served(origin, name, FORMATS[name](FILES), kind)])

    return make


def repository(source: str = "hf://org/model", **env: str) -> Make:
    return lambda *_: Situation([source], env)


def with_patterns(allow: str = "", ignore: str = "") -> Make:
    return repository(STORAGE_ALLOW_PATTERNS=allow, STORAGE_IGNORE_PATTERNS=ignore)


def tagged(origin: Origin, _: Path) -> Situation:
    origin.add_repo("org/tagged", {**FILES, "tagged.txt": b"v1"}, revisions=["main", "v1"])
    return Situation(["hf://org/tagged:v1"])


def private(origin: Origin, _: Path) -> Situation:
    origin.add_repo("org/private", FILES, private=True, readers=[TOKEN])
    return Situation(["hf://org/private"], {"HF_TOKEN": TOKEN})


def with_headers(origin: Origin, _: Path) -> Situation:
    return Situation([served(origin, "model.bin", b"weights")], {"127.0.0.1-headers": json.dumps({"X-Api-Key": "secret"})})


def by_query(origin: Origin, _: Path) -> Situation:
    address = served(origin, "download", zipped(FILES), "application/zip")
    return Situation([f"{address}?file=model.zip"])


def local(name: str = "", **env: str) -> Make:
    def make(_: Origin, tmp_path: Path) -> Situation:
        source = tmp_path / "claim"
        (source / "tokenizer").mkdir(parents=True)
        for path, content in FILES.items():
            (source / path).write_bytes(content)
        return Situation([f"file://{source}/{name}".rstrip("/")], env)

    return make


def local_path(origin: Origin, tmp_path: Path) -> Situation:
    return Situation([local()(origin, tmp_path).sources[0].removeprefix("file://")])


def local_archive(_: Origin, tmp_path: Path) -> Situation:
    (tmp_path / "model.zip").write_bytes(zipped(FILES))
    return Situation([f"file://{tmp_path}/model.zip"])


def directory_of_an_archive(_: Origin, tmp_path: Path) -> Situation:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "model.tgz").write_bytes(FORMATS["model.tgz"](FILES))
    return Situation([f"file://{tmp_path}/claim"])


def several(origin: Origin, tmp_path: Path) -> Situation:
    sources = ["hf://org/model", served(origin, "adapter.bin", b"weights"), *local()(origin, tmp_path).sources]
    return Situation([*sources, "/mnt/models/brought-by-the-agent"])


EQUAL: dict[str, Make] = {
    "a repository": repository(),
    "a repository at a revision": tagged,
    "a private repository with a token": private,
    "only files that patterns allow": with_patterns('["*.safetensors", "config.json"]'),
    "patterns with commas": with_patterns("*.safetensors, *.json"),
    "files that no pattern ignores": with_patterns(ignore='["*.md", "tokenizer/*"]'),
    "allowed and not ignored": with_patterns("*.txt,*.md", "README*"),
    "a pattern that crosses directories": with_patterns("*vocab*"),
    "a file": lambda origin, _: Situation([served(origin, "model.bin", b"weights")]),
    "an empty file": lambda origin, _: Situation([served(origin, "model.bin", b"")]),
    "a file behind extra headers": with_headers,
    **{f"an archive, {name}": archive(name) for name in FORMATS},
    "an archive named by the query": by_query,
    "a local directory": local(),
    "a local file": local("config.json"),
    "names of a local directory": local(STORAGE_ALLOW_PATTERNS="*.json", STORAGE_IGNORE_PATTERNS="README.md"),
    "a path": local_path,
    "a local archive": local_archive,
    "a local directory with nothing but an archive": directory_of_an_archive,
    "a path of KServe's agent": lambda *_: Situation(["/mnt/models/brought-by-the-agent"]),
    "several pairs": several,
    "foreign files in the directory": lambda *_: Situation(["hf://org/model"], before={"notes.txt": b"mine"}),
    "a second run": lambda *_: Situation(["hf://org/model"], runs=2),
    "a second run with links": lambda origin, tmp_path: Situation(local()(origin, tmp_path).sources, runs=2),
}


@pytest.mark.parametrize("name", EQUAL)
def test_both_produce_the_same_files(name: str, both: Both) -> None:
    kserve, ours = both(EQUAL[name])
    if not hasattr(tarfile, "data_filter") and "unexpected keyword argument 'filter'" in kserve.log:
        # On Python before 3.11.4, as on Debian 12, KServe cannot unpack any tar.
        assert (ours.code, ours.trees != [{}]) == (0, True), ours.log
        return
    assert (kserve.code, ours.code) == (0, 0), (kserve.log, ours.log)
    assert ours.trees == kserve.trees


def test_extra_headers_are_sent(both: Both, origin: Origin) -> None:
    both(with_headers)
    assert [request.headers.get("x-api-key") for request in origin.requests] == ["secret", "secret"]


def broken(origin: Origin, _: Path) -> Situation:
    return Situation([served(origin, "model.zip", b"PK\x03\x04 and no more", "application/zip")])


def empty(_: Origin, tmp_path: Path) -> Situation:
    (tmp_path / "empty").mkdir()
    return Situation([str(tmp_path / "empty")])


REFUSED: dict[str, tuple[Make, int]] = {
    "a missing repository": (repository("hf://org/nothing"), 77),
    "a missing revision": (repository("hf://org/model:nothing"), 66),
    "a missing file": (lambda origin, _: Situation([f"{origin.cdn_endpoint}/nothing.bin"]), 66),
    "an unreachable server": (repository("http://127.0.0.1:1/model.bin"), 69),
    "a web page instead of a file": (lambda origin, _: Situation([served(origin, "model.bin", b"<html>", "text/html")]), 77),
    "an address without a name": (lambda origin, _: Situation([f"{origin.cdn_endpoint}/"]), 64),
    "a missing local path": (repository("file:///nothing/here"), 66),
    "an empty local directory": (empty, 66),
    "a broken archive": (broken, 65),
    "an unknown scheme": (repository("ftp://host/model"), 64),
    "an owner without a name": (repository("hf://org/"), 77),
}


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_the_same_sources(name: str, both: Both) -> None:
    make, code = REFUSED[name]
    kserve, ours = both(make)
    assert kserve.code == 1
    assert ours.code == code, ours.log
    assert ours.trees == [{}], "nothing is visible after a failure"


# Intended differences: KServe, ours, and the reason.


def corrupted(origin: Origin, _: Path) -> Situation:
    origin.faults.add(Fault(FlipBit(100), origin="cdn"))
    return Situation(["hf://org/model"])


def cut_short(origin: Origin, _: Path) -> Situation:
    address = served(origin, "model.bin", random_bytes("cut", 500_000))
    origin.faults.add(Fault(Finish(after=100_000), path="model"))
    return Situation([address])


def slashed(origin: Origin, _: Path) -> Situation:
    origin.add_repo("org/slashed", FILES, revisions=["feature/new"])
    return Situation(["hf://org/slashed:feature/new"])


def of_another_type(origin: Origin, _: Path) -> Situation:
    return Situation([served(origin, "config.json", b"{}", "application/json")])


def compressed(origin: Origin, _: Path) -> Situation:
    return Situation([served(origin, "model.bin.gz", COMPRESSED)])


def leading_upwards(origin: Origin, _: Path) -> Situation:
    return Situation([served(origin, "model.zip", zipped({"../planted": b"x", "config.json": b"{}"}), "application/zip")])


def linked(origin: Origin, _: Path) -> Situation:
    packed = tar_of([regular("blobs/weights", b"x"), special("weights", b"2", "blobs/weights")])
    return Situation([served(origin, "model.tar", packed, "application/x-tar")])


def escaped(origin: Origin, _: Path) -> Situation:
    return Situation([served(origin, "my model.bin", b"x")])


class TestIntendedDifferences:
    def test_only_ours_refuses_a_shard_of_the_right_size_with_wrong_bytes(self, both: Both) -> None:
        """KServe compares only sizes. Ours compares the digest that the Hub publishes, and places no file that differs."""
        kserve, ours = both(corrupted)
        assert (kserve.code, kserve.trees[0]["model.safetensors"] == FILES["model.safetensors"]) == (0, False)
        assert (ours.code, ours.trees) == (65, [{}])

    def test_only_ours_hides_a_truncated_file(self, both: Both) -> None:
        """KServe leaves the truncated file under the final name. Ours places nothing and resumes in the next run."""
        kserve, ours = both(cut_short)
        assert kserve.trees[0]["model.bin"] == random_bytes("cut", 500_000)[:100_000]
        assert (ours.code, ours.trees) == (69, [{}])

    def test_only_ours_accepts_a_revision_with_a_slash(self, both: Both) -> None:
        """KServe splits the address at every slash and refuses it. Branches can have such names."""
        kserve, ours = both(slashed)
        assert (kserve.code, ours.code, ours.trees) == (1, 0, [dict(FILES)])

    def test_only_ours_accepts_a_file_with_its_own_content_type(self, both: Both) -> None:
        """KServe accepts only application/octet-stream, but servers send JSON as application/json. Both refuse a web page."""
        kserve, ours = both(of_another_type)
        assert (kserve.code, ours.code, ours.trees) == (1, 0, [{"config.json": b"{}"}])

    def test_only_ours_keeps_the_name_of_a_compressed_file(self, both: Both) -> None:
        """KServe decompresses it to model.bin.gz.tar, although it is not a tar. Ours places the published file."""
        kserve, ours = both(compressed)
        assert list(kserve.trees[0]) == ["model.bin.gz.tar"]
        assert (ours.code, ours.trees) == (0, [{"model.bin.gz": COMPRESSED}])

    def test_only_ours_refuses_an_archive_with_a_name_outside_its_directory(self, both: Both) -> None:
        """KServe unpacks the file under another name. Ours refuses the archive: such a name has no good reason."""
        kserve, ours = both(leading_upwards)
        assert (kserve.code, sorted(kserve.trees[0])) == (0, ["config.json", "planted"])
        assert (ours.code, ours.trees) == (65, [{}])

    def test_only_ours_replaces_a_link_in_an_archive_by_a_file(self, both: Both) -> None:
        """KServe creates the link. Ours creates a file of the same content: it never creates links from an archive."""
        kserve, ours = both(linked)
        if hasattr(tarfile, "data_filter"):  # otherwise KServe cannot unpack any tar
            assert kserve.trees == [{"blobs/weights": b"x", "weights": "-> blobs/weights"}]
        assert (ours.code, ours.trees) == (0, [{"blobs/weights": b"x", "weights": b"x"}])

    def test_only_ours_decodes_an_escaped_file_name(self, both: Both) -> None:
        """KServe keeps the escapes in the name. Ours uses the published name."""
        kserve, ours = both(escaped)
        assert [list(each.trees[0]) for each in (kserve, ours)] == [["my%20model.bin"], ["my model.bin"]]

    def test_only_ours_accepts_a_revision_after_an_at_sign(self, both: Both) -> None:
        """This project accepts `@` as well as `:`. KServe looks for a repository of that name."""
        kserve, ours = both(repository("hf://org/model@main"))
        assert (kserve.code, ours.code, ours.trees) == (1, 0, [dict(FILES)])

    def test_only_the_last_line_of_ours_is_the_reason(self, both: Both) -> None:
        """KServe shows users the last line of the log. Its own ends with the text of an exception after a traceback."""
        kserve, ours = both(REFUSED["a missing file"][0])
        assert "Traceback" in kserve.log
        assert last_line(ours.log).startswith("NotFound: the server returned error: 404 for nothing.bin")
        assert "Traceback" not in ours.log
