"""`oci://` on a real registry (Debian's docker-registry), with a front that can fail."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from backports import zstd

from fetcher.artifact import ArtifactRef
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.base import Source
from fetcher.sources.oci import OciAccess
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import MakeSource, SourceConformance, listing_of
from fetcher.testing.effects import Body, FlipBit
from fetcher.testing.exchange import parse_range
from fetcher.testing.faults import Fault, Faults
from tests.cli.conftest import last_line
from tests.lab.command import run_fetcher
from tests.lab.fixtures import StartFetcher
from tests.lab.front import Front, in_front_of
from tests.lab.registry import INDEX, Descriptor, Registry, registry
from tests.lab.waiting import wait_until
from tests.sources.mirrored import Mirrored

ANONYMOUS = OciAccess()
MiB = 1024 * 1024
SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0)
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
RAW = "application/vnd.cncf.model.weight.v1.raw"
Layers = list[tuple[bytes, str, Mapping[str, str]]]
Push = Callable[[Registry, str, Mapping[str, bytes]], str]
FILES = {"config.json": b'{"model_type": "llama"}', "sub/model.safetensors": random_bytes("oci", 3 * MiB + 17)}
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def front(server: Registry) -> Iterator[Front]:
    with in_front_of(server.host, server.port) as running:
        yield running


@pytest.fixture
def repository() -> str:
    """The name of a new repository."""
    return f"org/model-{next(_NUMBERS)}"


def push_oras(server: Registry, repository: str, files: Mapping[str, bytes], tag: str = "v1") -> str:
    """Push files as ORAS does, and return the digest of the manifest."""
    kind = "application/vnd.oci.image.layer.v1.tar"  # the type that oras gives to any file
    layers = [(content, kind, {TITLE: path}) for path, content in files.items()]
    return str(server.push(repository, tag, layers, artifact_type="application/vnd.example")["digest"])


def push_modelpack(server: Registry, repository: str, files: Mapping[str, bytes], tag: str = "v1") -> str:
    layers = [(content, RAW, {FILEPATH: path}) for path, content in files.items()]
    config = "application/vnd.cncf.model.config.v1+json"
    return str(server.push(repository, tag, layers, config=config, artifact_type=MODELPACK)["digest"])


def source_of(uri: str, access: OciAccess | None = ANONYMOUS, environ: Mapping[str, str] | None = None) -> Source:
    return open_source(ArtifactRef(uri), SETTINGS, environ or {}, credentials=access)


def tree(directory: Path) -> dict[str, bytes]:
    """All files of an artifact except those of the fetcher."""
    paths = (path for path in directory.rglob("*") if path.is_file() and ".fetcher" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}


class TestConformance(SourceConformance):
    @pytest.fixture
    def faults(self, front: Front) -> Faults:
        return front.faults

    @pytest.fixture
    def make_source(self, front: Front, server: Registry, repository: str) -> MakeSource:
        def make(files: Mapping[str, bytes]) -> Source:
            push_oras(server, repository, files)
            return source_of(f"oci://127.0.0.1:{front.own_port}/{repository}:v1")

        return make

    @pytest.fixture
    def missing_source(self, front: Front) -> Source:
        return source_of(f"oci://127.0.0.1:{front.own_port}/org/nothing:v1")


class TestConformanceWithMirrors(Mirrored, TestConformance):
    brings = "a peer"


@pytest.mark.parametrize("push", [push_oras, push_modelpack])
class TestRawLayers:
    """Layers that are files, fetched by ranges."""

    def test_an_artifact_becomes_a_directory(self, push: Push, server: Registry, repository: str, tmp_path: Path) -> None:
        digest = push(server, repository, FILES)
        done = run_fetcher(
            "fetch", f"oci://{server.place}/{repository}:v1", "--cache-dir", tmp_path, "--require-digests", "--json"
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert (tree(Path(result["path"])), result["revision"]) == (FILES, digest)


async def test_every_file_has_its_sha256(server: Registry, repository: str) -> None:
    push_oras(server, repository, FILES)
    async with aclosing(source_of(f"oci://{server.place}/{repository}:v1")) as source:
        listed = {file.path: [str(each) for each in file.digests] for file in (await listing_of(source)).files}
    assert listed == {path: [f"sha256:{hashlib.sha256(content).hexdigest()}"] for path, content in FILES.items()}


def tarred(members: Mapping[str, bytes | tuple[str, str]], kind: str = "") -> bytes:
    """A tar of files, and of links (`("hard", target)`, `("symbolic", target)`), compressed by `kind`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type = tarfile.LNKTYPE if content[0] == "hard" else tarfile.SYMTYPE
                member.linkname = content[1]
                archive.addfile(member)
    data = buffer.getvalue()
    return {"": lambda: data, "+gzip": lambda: gzip.compress(data), "+zstd": lambda: zstd.compress(data)}[kind]()


def push_image(server: Registry, repository: str, layers: Sequence[bytes], tag: str = "v1") -> Descriptor:
    config = "application/vnd.oci.image.config.v1+json"
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    return server.push(repository, tag, [(layer, kind, {}) for layer in layers], config=config)


def fetched(server: Registry, repository: str, *words: str | Path, tag: str = "v1") -> dict[str, bytes]:
    """Fetch the artifact by the command, and return its files."""
    done = run_fetcher("fetch", f"oci://{server.place}/{repository}:{tag}", *words)
    assert done.returncode == 0, done.stderr
    return tree(Path(done.stdout.strip()))


def refused(server: Registry, repository: str, *words: str | Path) -> tuple[int, str]:
    """Fetch an artifact in vain, and return the exit code and the last line."""
    done = run_fetcher("fetch", f"oci://{server.place}/{repository}:v1", *words)
    return done.returncode, last_line(done.stderr)


@pytest.mark.parametrize("kind", ["", "+gzip", "+zstd"])
class TestPackedLayers:
    """Layers that are archives: fetched, verified, unpacked, and placed as files with digests."""

    def test_a_modelpack_is_unpacked(self, kind: str, server: Registry, repository: str, tmp_path: Path) -> None:
        packed = f"application/vnd.cncf.model.weight.v1.tar{kind}"
        readme = (b"# model", "application/vnd.cncf.model.doc.v1.raw", {FILEPATH: "README.md"})
        server.push(repository, "v1", [(tarred(FILES, kind), packed, {}), readme], artifact_type=MODELPACK)
        words = ("--cache-dir", tmp_path, "--require-digests")
        assert fetched(server, repository, *words) == {**FILES, "README.md": b"# model"}

    def test_a_modelkit_is_unpacked_without_its_datasets(
        self, kind: str, server: Registry, repository: str, tmp_path: Path
    ) -> None:
        layers: Layers = [
            (tarred({name: content}, kind), f"application/vnd.kitops.modelkit.{part}.v1.tar{kind}", {})
            for part, (name, content) in zip(("model", "modelpart"), FILES.items(), strict=True)
        ]
        layers.append((tarred({"data.csv": b"1,2"}, kind), f"application/vnd.kitops.modelkit.dataset.v1.tar{kind}", {}))
        server.push(repository, "v1", layers, config="application/vnd.kitops.modelkit.config.v1+json")
        assert fetched(server, repository, "--cache-dir", tmp_path) == FILES

    def test_an_image_gives_its_models(self, kind: str, server: Registry, repository: str, tmp_path: Path) -> None:
        members = {"bin/sh": b"#!", **{f"models/{path}": content for path, content in FILES.items()}}
        push_image(server, repository, [tarred(members, kind)])
        assert fetched(server, repository, "--dest", tmp_path / "model") == FILES


def test_a_directory_that_oras_packed_is_unpacked(server: Registry, repository: str, tmp_path: Path) -> None:
    marks = {TITLE: "sub", "io.deis.oras.content.unpack": "true"}
    packed = (tarred({"sub/a": b"1"}, "+gzip"), "application/vnd.oci.image.layer.v1.tar+gzip", marks)
    server.push(repository, "v1", [packed, (b"2", "text/plain", {TITLE: "b"})])
    assert fetched(server, repository, "--cache-dir", tmp_path) == {"sub/a": b"1", "b": b"2"}


def test_a_model_of_docker_has_files_named_by_their_format(server: Registry, repository: str, tmp_path: Path) -> None:
    kind = "application/vnd.docker.ai"
    layers: Layers = [
        (b"shard 1", f"{kind}.safetensors", {}),
        (b"shard 2", f"{kind}.safetensors", {}),
        (b"license", f"{kind}.license", {}),
        (b"{{ messages }}", f"{kind}.chat.template.jinja", {}),
        (tarred({"config.json": b"{}"}), f"{kind}.vllm.config.tar", {}),
    ]
    server.push(repository, "v1", layers, config=f"{kind}.model.config.v0.1+json")
    server.push(repository, "gguf", [(b"GGUF", f"{kind}.gguf.v3", {})], config=f"{kind}.model.config.v0.1+json")
    assert fetched(server, repository, "--cache-dir", tmp_path) == {
        "model-00001-of-00002.safetensors": b"shard 1",
        "model-00002-of-00002.safetensors": b"shard 2",
        "LICENSE": b"license",
        "template.jinja": b"{{ messages }}",
        "config.json": b"{}",
    }
    assert fetched(server, repository, "--cache-dir", tmp_path, tag="gguf") == {"model.gguf": b"GGUF"}


class TestImages:
    def test_later_layers_replace_and_remove_files(self, server: Registry, repository: str, tmp_path: Path) -> None:
        lower = {
            "models/kept": b"1",
            "models/replaced": b"old",
            "models/gone": b"2",
            "models/tree/a": b"3",
            "models/hid/b": b"4",
        }
        upper = {
            "models/.wh.gone": b"", "models/.wh.tree": b"", "models/replaced": b"new",
            "models/hid/c": b"5", "models/hid/.wh..wh..opq": b"",
        }  # fmt: skip
        push_image(server, repository, [tarred(lower), tarred(upper)])
        assert fetched(server, repository, "--cache-dir", tmp_path) == {"kept": b"1", "replaced": b"new", "hid/c": b"5"}

    def test_links_inside_the_model_become_files(self, server: Registry, repository: str, tmp_path: Path) -> None:
        lower: dict[str, bytes | tuple[str, str]] = {"models/blobs/a": b"weights", "models/hard": ("hard", "models/blobs/a")}
        upper: dict[str, bytes | tuple[str, str]] = {"models/main/soft": ("symbolic", "../blobs/a")}
        push_image(server, repository, [tarred(lower), tarred(upper)])
        found = fetched(server, repository, "--cache-dir", tmp_path)
        assert found == dict.fromkeys(("blobs/a", "hard", "main/soft"), b"weights")

    @pytest.mark.parametrize("link", [("symbolic", "/etc/passwd"), ("symbolic", "../../etc/passwd"), ("hard", "etc/passwd")])
    def test_a_link_that_leaves_the_model_is_refused(
        self, link: tuple[str, str], server: Registry, repository: str, tmp_path: Path
    ) -> None:
        push_image(server, repository, [tarred({"etc/passwd": b"root", "models/a": link})])
        code, line = refused(server, repository, "--cache-dir", tmp_path)
        assert (code, line.partition(" ")[0]) == (65, "MalformedArchive:")
        assert "a is a link to" in line

    def test_the_platform_of_this_machine_is_chosen_else_amd64(self, server: Registry, repository: str, tmp_path: Path) -> None:
        entries = []
        for architecture in ("s390x", "amd64"):
            image = push_image(server, repository, [tarred({f"models/{architecture}": b"1"})], tag=architecture)
            entries.append({**image, "platform": {"os": "linux", "architecture": architecture}})
        server.push_manifest(repository, "v1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)
        assert fetched(server, repository, "--cache-dir", tmp_path) == {"amd64": b"1"}

    def test_an_image_without_a_model_is_refused(self, server: Registry, repository: str, tmp_path: Path) -> None:
        push_image(server, repository, [tarred({"bin/sh": b"#!"})])
        assert refused(server, repository, "--cache-dir", tmp_path)[0] == 65


class TestLife:
    """What all sources promise, with layers that are files and layers that are archives."""

    def test_the_scratch_is_removed(self, server: Registry, repository: str, tmp_path: Path) -> None:
        push_image(server, repository, [tarred({"models/a": b"1"})])
        fetched(server, repository, "--cache-dir", tmp_path)
        assert not list(tmp_path.rglob("archive/*/*"))

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_moved_tag_is_noticed(self, packed: bool, server: Registry, repository: str, tmp_path: Path) -> None:
        def push(files: dict[str, bytes]) -> None:
            if packed:
                push_image(server, repository, [tarred({f"models/{path}": content for path, content in files.items()})])
            else:
                push_oras(server, repository, files)

        push({"a": b"1", "b": b"2"})
        words = ("--cache-dir", tmp_path, "--refresh", "on-change")
        assert fetched(server, repository, *words) == {"a": b"1", "b": b"2"}
        push({"a": b"1", "c": b"3"})
        assert fetched(server, repository, "--cache-dir", tmp_path) == {"a": b"1", "b": b"2"}
        assert fetched(server, repository, *words) == {"a": b"1", "c": b"3"}

    @pytest.mark.parametrize("packed", [False, True])
    def test_patterns_select_files(self, packed: bool, server: Registry, repository: str, tmp_path: Path) -> None:
        if packed:
            push_image(server, repository, [tarred({f"models/{path}": content for path, content in FILES.items()})])
        else:
            push_oras(server, repository, FILES)
        assert set(fetched(server, repository, "--cache-dir", tmp_path, "--include", "*.json")) == {"config.json"}

    def test_a_digest_is_a_revision(self, server: Registry, repository: str, tmp_path: Path) -> None:
        digest = push_oras(server, repository, {"a": b"1"})
        push_oras(server, repository, {"a": b"2"})
        for words in (
            (f"oci://{server.place}/{repository}@{digest}",),
            (f"oci://{server.place}/{repository}", "--revision", digest),
        ):
            done = run_fetcher("fetch", *words, "--cache-dir", tmp_path)
            assert tree(Path(done.stdout.strip())) == {"a": b"1"}, done.stderr

    def test_a_plan_lists_files_and_archives(self, server: Registry, repository: str, tmp_path: Path) -> None:
        push_oras(server, repository, FILES)
        done = run_fetcher("plan", f"oci+fetch://{server.place}/{repository}:v1", "--cache-dir", tmp_path, "--json")
        assert {each["path"] for each in json.loads(done.stdout)["files"]} == set(FILES), done.stderr
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("selection", [(), ("--include", "*.json"), ("--expect", f"config.json=sha256:{'0' * 64}")])
    def test_a_plan_says_which_files_are_archives(
        self, selection: tuple[str, ...], server: Registry, repository: str, tmp_path: Path
    ) -> None:
        """Patterns and pins are about the members, whose names are not known."""
        packed, kind = tarred(FILES), "application/vnd.cncf.model.weight.v1.tar"
        readme = (b"# model", "application/vnd.cncf.model.doc.v1.raw", {FILEPATH: "README.md"})
        server.push(repository, "v1", [(packed, kind, {}), readme], artifact_type=MODELPACK)
        words = (f"oci://{server.place}/{repository}:v1", "--cache-dir", str(tmp_path), *selection)
        plan = json.loads(run_fetcher("plan", *words, "--json").stdout)
        archive, other = plan["files"]
        skipped = "--include" in selection
        assert (archive["state"], archive["size"], other["state"]) == ("unpack", len(packed), "skipped" if skipped else "fetch")
        assert plan["bytes_to_fetch"] == len(packed) + (0 if skipped else 7)
        *_, last = run_fetcher("plan", *words).stdout.splitlines()
        assert last == "archives  1 to unpack after the fetch; the sizes of their files are not known yet"

    def test_a_plan_of_what_is_unpacked_already_has_nothing_to_fetch(
        self, server: Registry, repository: str, tmp_path: Path
    ) -> None:
        def push(content: bytes) -> None:
            push_image(server, repository, [tarred({"models/a": content})])

        words = (f"oci://{server.place}/{repository}:v1", "--cache-dir", tmp_path)
        push(b"1")
        fetched(server, repository, "--cache-dir", tmp_path)
        plan = json.loads(run_fetcher("plan", *words, "--json").stdout)
        assert ([each["state"] for each in plan["files"]], plan["bytes_to_fetch"], plan["cached"]) == (["held"], 0, True)
        assert "archives " not in run_fetcher("plan", *words).stdout
        push(b"2")
        plan = json.loads(run_fetcher("plan", *words, "--json").stdout)
        assert [each["state"] for each in plan["files"]] == ["unpack"]

    def test_a_part_of_a_packed_artifact_is_refused_by_name(self, server: Registry, repository: str, tmp_path: Path) -> None:
        push_image(server, repository, [tarred({"models/a": b"1"})])
        code, line = refused(server, repository, "--cache-dir", tmp_path, "--part", "1/2")
        assert code == 64
        assert line.startswith(f"Usage: oci://{server.place}/{repository}:v1 is packed in archives, which --part cannot divide")

    def test_verify_finds_damage(self, server: Registry, repository: str, tmp_path: Path) -> None:
        push_oras(server, repository, FILES)
        fetched(server, repository, "--dest", tmp_path)
        assert run_fetcher("verify", tmp_path).returncode == 0
        (tmp_path / "config.json").write_bytes(b'{"model_type": "LLAMA"}')
        assert run_fetcher("verify", tmp_path).returncode == 65

    @pytest.mark.parametrize("place", ["--cache-dir", "--dest"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_a_damaged_file_is_repaired(
        self, packed: bool, place: str, server: Registry, repository: str, tmp_path: Path
    ) -> None:
        if packed:
            push_image(server, repository, [tarred({f"models/{path}": content for path, content in FILES.items()})])
        else:
            push_oras(server, repository, FILES)
        done = run_fetcher("fetch", f"oci://{server.place}/{repository}:v1", place, tmp_path)
        artifact = Path(done.stdout.strip())
        (artifact / "config.json").unlink()
        (artifact / "config.json").write_bytes(b"damaged")
        repaired = run_fetcher("verify", artifact, "--repair")
        assert (repaired.returncode, tree(artifact)) == (0, FILES), repaired.stderr
        assert not list(tmp_path.rglob("archive/*/*"))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["--cache-dir", "--dest"])
def test_a_killed_fetch_continues(
    packed: bool, place: str, server: Registry, repository: str, start_fetcher: StartFetcher, tmp_path: Path
) -> None:
    large = {"model.bin": random_bytes("oci large", 40 * MiB)}
    if packed:
        push_image(server, repository, [tarred({f"models/{path}": content for path, content in large.items()})])
    else:
        push_oras(server, repository, large)
    with in_front_of(server.host, server.port) as front:
        words = ("fetch", f"oci://127.0.0.1:{front.own_port}/{repository}:v1", place, tmp_path, "--max-concurrency", "2")
        fetching = start_fetcher(*words, "--limit-rate", "10M")  # four seconds in all
        wait_until(
            lambda: any(b'"part"' in path.read_bytes() for path in tmp_path.rglob("journal.*")), "some data is journalled"
        )
        fetching.kill()
        fetching.communicate(timeout=10)
        before = len(front.requests)
        done = run_fetcher(*words)
    assert done.returncode == 0, done.stderr
    assert tree(Path(done.stdout.strip())) == large
    ranges = [parse_range(each.range or "", 50 * MiB) for each in front.requests[before:] if "/blobs/" in each.target]
    asked = sum(len(each) if each is not None else 50 * MiB for each in ranges)
    assert 0 < asked < 40 * MiB


class TestBadManifests:
    """What a registry says wrongly, or what is not a model, ends in the right exit code and sentence."""

    @pytest.fixture(autouse=True)
    def published(self, server: Registry) -> None:
        """The artifact whose manifest the front replaces."""
        push_oras(server, "org/model", {"a": b"1"})

    @pytest.mark.parametrize(
        ("change", "code", "says"),
        [
            ({"urls": ["https://elsewhere/layer"]}, 77, "has a foreign layer"),
            ({"digest": "sha512:" + "0" * 128}, 77, "not a SHA-256"),
            ({"annotations": {}}, 77, "have no names"),
            ({"size": -1}, 69, "without type, digest or size"),
            ({"annotations": {TITLE: "../../escape"}}, 65, "HostilePath: "),
            ({"annotations": {TITLE: "/etc/passwd"}}, 65, "HostilePath: "),
        ],
    )
    def test_bad_layers(self, change: Mapping[str, object], code: int, says: str, front: Front, tmp_path: Path) -> None:
        layer = {"mediaType": "text/plain", "digest": f"sha256:{'0' * 64}", "size": 1, "annotations": {TITLE: "a"}, **change}
        manifest = {"schemaVersion": 2, "config": {"mediaType": "application/x"}, "layers": [layer]}
        found = refused_manifest(front, json.dumps(manifest).encode(), tmp_path)
        assert (found[0], says in found[1]) == (code, True), found

    @pytest.mark.parametrize(
        ("content", "code", "says"),
        [
            (b"<html>", 69, "is not JSON"),
            (b'{"schemaVersion": 1, "fsLayers": []}', 77, "docker's first format"),
            (b'{"schemaVersion": 2, "manifests": []}', 66, "without a manifest for"),
            (b'{"schemaVersion": 2}', 77, "neither an image nor an artifact"),
            (b" " * (5 * MiB), 69, "sends more than"),
        ],
    )
    def test_bad_documents(self, content: bytes, code: int, says: str, front: Front, tmp_path: Path) -> None:
        found = refused_manifest(front, content, tmp_path)
        assert (found[0], says in found[1]) == (code, True), found

    def test_a_manifest_that_does_not_match_its_digest_is_refused(self, server: Registry, front: Front, tmp_path: Path) -> None:
        digest = push_oras(server, "org/model", {"a": b"1"})
        front.faults.add(Fault(Body(b'{"schemaVersion": 2}')))
        uri = f"oci://127.0.0.1:{front.own_port}/org/model@{digest}"
        done = run_fetcher("fetch", uri, "--cache-dir", tmp_path, "--retry-for", "0s")
        assert (done.returncode, "sends another manifest" in done.stderr) == (69, True), done.stderr

    def test_a_damaged_layer_is_a_digest_mismatch(
        self, server: Registry, repository: str, front: Front, tmp_path: Path
    ) -> None:
        push_oras(server, repository, {"a": b"weights"})
        digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
        front.faults.add(Fault(FlipBit(3), path=f"/v2/{repository}/blobs/{digest}"))
        uri = f"oci://127.0.0.1:{front.own_port}/{repository}:v1"
        done = run_fetcher("fetch", uri, "--cache-dir", tmp_path, "--retry-for", "1s")
        assert done.returncode == 65, done.stderr


def refused_manifest(front: Front, content: bytes, root: Path) -> tuple[int, str]:
    """Fetch an artifact whose manifest is `content`, in vain, and return the exit code and the last line."""
    front.faults.add(Fault(Body(content)))
    uri = f"oci://127.0.0.1:{front.own_port}/org/model:v1"
    done = run_fetcher("fetch", uri, "--cache-dir", root, "--retry-for", "0s")
    return done.returncode, last_line(done.stderr)
