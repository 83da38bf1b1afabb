"""A checkpoint is the files that an engine reads, in its order. Ambiguous checkpoints are refused or give a warning."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from fetcher.errors import NotFound, UsageError
from fetcher.testing.checkpoint import make_checkpoint
from loader.checkpoint.index import Checkpoint, Shard, read_checkpoint
from loader.checkpoint.locations import natural
from loader.errors import FileReplaced, MalformedCheckpoint
from tests.loader.making import shard, write_index

INDEX = "model.safetensors.index.json"

Files = Mapping[str, bytes | Mapping[str, str]]
"""Name → bytes of a shard, or the weight map of an index."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def make(model: Path) -> Callable[[Files], Path]:
    def make(files: Files) -> Path:
        for name, content in files.items():
            path = model / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                write_index(path, content)
        return model

    return make


def names(checkpoint: Checkpoint[Shard], model: Path) -> list[str]:
    return [os.path.relpath(shard.path, model) for shard in checkpoint.shards]


def one(name: str, data: bytes = b"\0") -> bytes:
    """A shard with one tensor."""
    return shard({name: data})


Make = Callable[[Files], Path]


class TestContent:
    def test_a_generated_model_has_its_shards_tensors_and_sizes(self, model: Path) -> None:
        make_checkpoint(model, shards=3, shard_size=200_000)
        checkpoint = read_checkpoint(model)
        weight_map = json.loads((model / INDEX).read_text())["weight_map"]
        assert {name: os.path.basename(tensor.file) for name, tensor in checkpoint.tensors.items()} == weight_map
        assert names(checkpoint, model) == [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
        assert checkpoint.size == sum(path.stat().st_size for path in model.glob("*.safetensors"))
        assert checkpoint.data_size == json.loads((model / INDEX).read_text())["metadata"]["total_size"]

    def test_tensors_are_in_the_order_of_reading(self, make: Make) -> None:
        model = make({"b.safetensors": shard({"z": b"1", "a": b"2"}), "a.safetensors": shard({"y": b"3", "b": b"4"})})
        assert list(read_checkpoint(model).tensors) == ["y", "b", "z", "a"]

    def test_the_byte_range_of_a_tensor_holds_its_data(self, make: Make) -> None:
        model = make({"a.safetensors": shard({"x": b"one", "y": b"three"}), "b.safetensors": one("z", b"two")})
        for name, data in {"x": b"one", "y": b"three", "z": b"two"}.items():
            tensor = read_checkpoint(model).tensors[name]
            assert Path(tensor.file).read_bytes()[tensor.start : tensor.stop] == data

    def test_tensors_are_immutable(self, make: Make) -> None:
        tensors = read_checkpoint(make({"a.safetensors": one("x")})).tensors
        with pytest.raises(TypeError):
            tensors["y"] = tensors["x"]  # type: ignore[index]

    def test_a_shard_keeps_its_metadata(self, make: Make) -> None:
        model = make({"a.safetensors": shard({}, {"format": "pt"}), "b.safetensors": shard({})})
        assert [dict(shard.metadata) for shard in read_checkpoint(model).shards] == [{"format": "pt"}, {}]

    def test_all_descriptors_are_closed(self, make: Make) -> None:
        model = make({"a.safetensors": one("x"), "b.safetensors": b"broken", INDEX: {"x": "a.safetensors"}})
        before = os.listdir("/proc/self/fd")
        read_checkpoint(model)
        for source in (model / "b.safetensors", [model]):
            with pytest.raises(MalformedCheckpoint):
                read_checkpoint(source)
        assert os.listdir("/proc/self/fd") == before


class TestWithoutAnIndex:
    def test_all_files_of_the_directory_are_read_in_natural_order(self, make: Make) -> None:
        order = ["model-2.safetensors", "model-010.safetensors", "model-10.safetensors", "other.safetensors"]
        model = make({name: one(name) for name in reversed(order)} | {"pytorch_model.bin": b"", "config.json": b"{}"})
        assert names(read_checkpoint(model), model) == order

    def test_subdirectories_and_hidden_files_are_ignored(self, make: Make) -> None:
        hidden = {"text_encoder/model.safetensors": one("a"), "._model.safetensors": b"Mac", ".cache/x.safetensors": one("b")}
        model = make({"model.safetensors": one("x"), **hidden})
        assert names(read_checkpoint(model), model) == ["model.safetensors"]

    def test_the_staging_of_the_fetcher_is_ignored(self, make: Make) -> None:
        model = make({"model.safetensors": one("x"), ".fetcher/staging/data/model.safetensors": b"half"})
        assert names(read_checkpoint(model), model) == ["model.safetensors"]

    def test_a_missing_numbered_part_is_refused(self, make: Make) -> None:
        model = make({f"model-0000{number}-of-00004.safetensors": one(str(number)) for number in (1, 2, 4)})
        with pytest.raises(
            NotFound, match=r"model-00003-of-00004\.safetensors is missing; the names of the other parts"
        ) as caught:
            read_checkpoint(model)
        assert caught.value.path == str(model / "model-00003-of-00004.safetensors")

    def test_parts_may_be_numbered_from_zero(self, make: Make) -> None:
        order = [f"model-0000{number}-of-00003.safetensors" for number in (0, 1, 2)]
        model = make({name: one(name) for name in order})
        assert names(read_checkpoint(model), model) == order

    def test_a_tensor_in_two_files_is_read_from_the_last_with_a_warning(self, make: Make) -> None:
        model = make({"a.safetensors": one("x", b"1"), "b.safetensors": shard({"y": b"2", "x": b"3"})})
        checkpoint = read_checkpoint(model)
        assert {name: os.path.basename(tensor.file) for name, tensor in checkpoint.tensors.items()} == {
            "x": "b.safetensors",
            "y": "b.safetensors",
        }
        assert checkpoint.warnings == (
            f"1 tensor name in more than one file, such as 'x': the last file wins; 'x' is read from {model}/b.safetensors",
        )

    @pytest.mark.parametrize(
        "variant",
        [
            {"model.fp16.safetensors": one("x")},
            {"model.fp32-00001-of-2.safetensors": one("x"), "model.safetensors.index.fp32.json": {"x": "missing.safetensors"}},
            {"model-00001-of-00002.bf16.safetensors": one("x")},
            {"model.non_ema.safetensors": one("x")},
        ],
        ids=["a file", "parts with an index", "some parts", "averaged"],
    )
    def test_a_variant_is_ignored_if_the_plain_weights_exist(self, make: Make, variant: Files) -> None:
        model = make({**variant, "model.safetensors": one("x")})
        checkpoint = read_checkpoint(model)
        assert (names(checkpoint, model), checkpoint.warnings) == (["model.safetensors"], ())

    def test_a_file_with_another_word_in_its_name_is_not_a_variant(self, make: Make) -> None:
        model = make({"model.visual.safetensors": one("v"), "model.safetensors": one("x")})
        assert list(read_checkpoint(model).tensors) == ["x", "v"]

    @pytest.mark.parametrize("first", ["model.fp16-00001-of-00002.safetensors", "model-00001-of-00002.fp16.safetensors"])
    def test_a_variant_without_plain_weights_must_be_complete(self, make: Make, first: str) -> None:
        with pytest.raises(NotFound, match=re.escape(first.replace("00001", "00002"))):
            read_checkpoint(make({first: one("x")}))

    def test_a_directory_without_weights_is_refused_and_its_subdirectories_with_weights_are_named(self, make: Make) -> None:
        model = make({"pytorch_model.bin": b"", "unet/model.safetensors": one("x")})
        with pytest.raises(NotFound, match=r"has no \.safetensors files; name a subdirectory .*: 'unet'"):
            read_checkpoint(model)


class TestWithAnIndex:
    def test_only_files_in_the_index_are_read(self, make: Make) -> None:
        model = make({
            "model-00001-of-00002.safetensors": one("a"),
            "model-00002-of-00002.safetensors": one("b"),
            "left-over-from-yesterday.safetensors": one("a"),
            INDEX: {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"},
        })  # fmt: skip
        assert names(read_checkpoint(model), model) == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]

    def test_files_are_read_in_natural_order_whatever_the_order_of_the_index(self, make: Make) -> None:
        order = ["model-2.safetensors", "model-10.safetensors", "model-11.safetensors"]
        model = make({name: one(name) for name in order} | {INDEX: {name: name for name in reversed(order)}})
        assert names(read_checkpoint(model), model) == order

    def test_tensors_that_the_index_does_not_name_are_read_too(self, make: Make) -> None:
        """transformers and vLLM read whole files: a tied or quantized tensor is often missing in the index."""
        model = make({"a.safetensors": shard({"x": b"1", "x.scale": b"2"}), INDEX: {"x": "a.safetensors"}})
        assert list(read_checkpoint(model).tensors) == ["x", "x.scale"]

    def test_an_index_of_another_name_is_used_if_it_is_the_only_one(self, make: Make) -> None:
        name = "diffusion_pytorch_model.safetensors.index.json"
        model = make({"a.safetensors": one("x"), "b.safetensors": one("x"), name: {"x": "b.safetensors"}})
        assert names(read_checkpoint(model), model) == ["b.safetensors"]

    def test_the_usual_index_takes_precedence(self, make: Make) -> None:
        others = {
            "model.fp16.safetensors.index.json": {"x": "b.safetensors"},
            "a.safetensors.index.json": {"x": "b.safetensors"},
        }
        model = make({"a.safetensors": one("x"), "b.safetensors": one("x"), INDEX: {"x": "a.safetensors"}, **others})
        assert names(read_checkpoint(model), model) == ["a.safetensors"]

    def test_several_unusual_indexes_are_ambiguous(self, make: Make) -> None:
        indexes = {f"{name}.safetensors.index.json": {"x": f"{name}.safetensors"} for name in ("bf16", "fp8")}
        model = make({"bf16.safetensors": one("x"), "fp8.safetensors": one("x"), **indexes})
        with pytest.raises(UsageError, match=r"'bf16\.safetensors\.index\.json', 'fp8\.safetensors\.index\.json'"):
            read_checkpoint(model)
        assert names(read_checkpoint(model / "fp8.safetensors.index.json"), model) == ["fp8.safetensors"]

    def test_an_index_may_name_files_in_subdirectories(self, make: Make) -> None:
        model = make({"parts/a.safetensors": one("x"), INDEX: {"x": "parts/a.safetensors"}})
        assert names(read_checkpoint(model), model) == ["parts/a.safetensors"]

    @pytest.mark.parametrize(
        ("file", "words"),
        [
            ("../a.safetensors", "leaves the directory"),
            ("parts/../../a.safetensors", "leaves the directory"),
            ("./a.safetensors", "leaves the directory"),
            ("parts//a.safetensors", "leaves the directory"),
            ("..", "leaves the directory"),
            ("", "leaves the directory"),
            ("/etc/passwd", "absolute"),
            ("a\0.safetensors", "control characters"),
            ("\x1b[2Ja.safetensors", "control characters"),
            ("a" * 3000, "longer than filesystems allow"),
            (None, "not a file name"),
            (["a.safetensors"], "not a file name"),
            (1, "not a file name"),
        ],
    )
    def test_a_file_name_must_stay_within_the_directory(self, make: Make, file: object, words: str) -> None:
        model = make({"inside.safetensors": one("y"), "../a.safetensors": one("x")})
        write_index(model / INDEX, {"y": "inside.safetensors", "x": file})
        with pytest.raises(MalformedCheckpoint, match=words) as caught:
            read_checkpoint(model)
        assert (caught.value.path, caught.value.field) == (str(model / INDEX), "weight_map['x']")
        assert len(str(caught.value)) < len(str(model)) + 300

    def test_a_missing_file_is_named_with_its_index(self, make: Make) -> None:
        model = make({"a.safetensors": one("x"), INDEX: {"x": "a.safetensors", "y": "b.safetensors"}})
        with pytest.raises(NotFound, match=r"/b\.safetensors is missing; .*/model\.safetensors\.index\.json names it"):
            read_checkpoint(model)

    def test_a_tensor_is_read_from_the_file_that_has_it_whatever_the_index_says(self, make: Make) -> None:
        model = make(
            {"a.safetensors": one("x"), "b.safetensors": one("y"), INDEX: {"x": "b.safetensors", "y": "a.safetensors"}}
        )
        checkpoint = read_checkpoint(model)
        assert os.path.basename(checkpoint.tensors["x"].file) == "a.safetensors"
        assert checkpoint.warnings == (
            f"{model}/{INDEX} is wrong about 2 tensors, such as 'x': another file has it; it is read from there",
        )

    @pytest.mark.parametrize("others", [{}, {"b.safetensors": one("y")}], ids=["nowhere", "in a file outside the index"])
    def test_a_tensor_that_no_indexed_file_has_gives_a_warning(self, make: Make, others: Files) -> None:
        model = make({"a.safetensors": one("x"), **others, INDEX: {"x": "a.safetensors", "y": "a.safetensors"}})
        checkpoint = read_checkpoint(model)
        assert list(checkpoint.tensors) == ["x"]
        assert checkpoint.warnings == (
            f"{model}/{INDEX} is wrong about 1 tensor, such as 'y': no shard has it; asking for it is an error",
        )

    @pytest.mark.parametrize("file", ["a.safetensors", "b.safetensors"])
    def test_the_index_decides_about_a_tensor_in_two_files(self, make: Make, file: str) -> None:
        both = {"a.safetensors": shard({"x": b"1", "z": b"2"}), "b.safetensors": shard({"y": b"3", "z": b"4"})}
        checkpoint = read_checkpoint(make({**both, INDEX: {"x": "a.safetensors", "y": "b.safetensors", "z": file}}))
        assert os.path.basename(checkpoint.tensors["z"].file) == file
        assert "the index decides" in checkpoint.warnings[0]

    def test_a_tensor_in_two_files_that_the_index_does_not_name_is_read_from_the_last(self, make: Make) -> None:
        both = {"a.safetensors": shard({"x": b"1", "z": b"2"}), "b.safetensors": shard({"y": b"3", "z": b"4"})}
        checkpoint = read_checkpoint(make({**both, INDEX: {"x": "a.safetensors", "y": "b.safetensors"}}))
        assert os.path.basename(checkpoint.tensors["z"].file) == "b.safetensors"

    def test_the_merged_file_is_read_if_no_shard_of_the_index_exists(self, make: Make) -> None:
        model = make({"model.safetensors": one("x"), INDEX: {"x": "model-00001-of-00001.safetensors"}})
        checkpoint = read_checkpoint(model)
        assert names(checkpoint, model) == ["model.safetensors"]
        assert checkpoint.warnings == (f"no shard that {model}/{INDEX} names exists; model.safetensors is read instead",)

    def test_the_index_of_a_variant_is_used_if_it_is_the_only_one(self, make: Make) -> None:
        name = "diffusion_pytorch_model.safetensors.index.fp16.json"
        model = make({"a.safetensors": one("x"), "b.safetensors": one("y"), name: {"x": "a.safetensors"}})
        assert names(read_checkpoint(model), model) == ["a.safetensors"]
        assert names(read_checkpoint(model / name), model) == ["a.safetensors"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "not JSON"),
            ("[]", "weight_map: not a JSON object"),
            ("{}", "weight_map: not a JSON object"),
            ('{"weight_map": []}', "weight_map: not a JSON object"),
            ('{"weight_map": {}}', "weight_map: not a JSON object"),
            ('{"weight_map": {"x": "a.safetensors", "x": "b.safetensors"}}', "duplicate key 'x'"),
            ('{"weight_map": {"x": "a.safetensors"}, "weight_map": {"x": "a.safetensors"}}', "duplicate key 'weight_map'"),
            ('{"weight_map": {"x": "a.safetensors"}, "metadata": NaN}', "NaN is not JSON"),
            ('{"weight_map": ' + "[" * 100_000, "deeper than"),
        ],
    )
    def test_an_invalid_index_is_refused(self, make: Make, text: str, words: str) -> None:
        model = make({"a.safetensors": one("x"), "b.safetensors": one("x")})
        (model / INDEX).write_text(text)
        with pytest.raises(MalformedCheckpoint, match=words) as caught:
            read_checkpoint(model)
        assert caught.value.path == str(model / INDEX)

    def test_an_index_above_the_limit_is_refused(self, make: Make) -> None:
        model = make({"a.safetensors": one("x")})
        with (model / INDEX).open("wb") as file:
            file.truncate(100_000_001)
        with pytest.raises(MalformedCheckpoint, match="100000001 bytes exceed the limit of 100000000"):
            read_checkpoint(model)

    def test_the_total_size_in_the_index_is_ignored(self, make: Make) -> None:
        model = make({"a.safetensors": one("x")})
        write_index(model / INDEX, {"x": "a.safetensors"}, metadata={"total_size": 5.0})
        assert read_checkpoint(model).data_size == 1


class TestMistral:
    """Mistral's repositories have every weight twice: for transformers, and as `consolidated*`."""

    OWN: ClassVar[Files] = {"consolidated.safetensors": one("layers.0.wq")}

    def test_consolidated_files_are_ignored_if_there_is_an_index_for_transformers(self, make: Make) -> None:
        model = make(
            {**self.OWN, "model-00001-of-00001.safetensors": one("q"), INDEX: {"q": "model-00001-of-00001.safetensors"}}
        )
        assert names(read_checkpoint(model), model) == ["model-00001-of-00001.safetensors"]

    def test_consolidated_files_are_ignored_if_there_is_a_plain_file(self, make: Make) -> None:
        model = make({**self.OWN, "model.safetensors": one("q")})
        assert names(read_checkpoint(model), model) == ["model.safetensors"]

    def test_the_index_of_consolidated_files_is_ignored_if_there_is_a_plain_file(self, make: Make) -> None:
        index = {"consolidated.safetensors.index.json": {"layers.0.wq": "consolidated.safetensors"}}
        model = make({**self.OWN, **index, "model.safetensors": one("q")})
        assert names(read_checkpoint(model), model) == ["model.safetensors"]

    def test_consolidated_files_alone_are_the_checkpoint(self, make: Make) -> None:
        model = make(self.OWN)
        assert names(read_checkpoint(model), model) == ["consolidated.safetensors"]

    def test_the_index_of_consolidated_files_alone_is_used(self, make: Make) -> None:
        parts = {f"consolidated-0000{number}-of-00002.safetensors": one(str(number)) for number in (1, 2)}
        index = {"consolidated.safetensors.index.json": {"2": "consolidated-00002-of-00002.safetensors"}}
        model = make({**parts, **index})
        assert names(read_checkpoint(model), model) == ["consolidated-00002-of-00002.safetensors"]

    @pytest.mark.parametrize("name", ["consolidated.safetensors", "consolidated.safetensors.index.json"])
    def test_consolidated_files_can_be_named(self, make: Make, name: str) -> None:
        index = {"consolidated.safetensors.index.json": {"layers.0.wq": "consolidated.safetensors"}}
        model = make({**self.OWN, **index, "model.safetensors": one("q")})
        assert list(read_checkpoint(model / name).tensors) == ["layers.0.wq"]


class TestOtherSources:
    def test_one_file_is_a_checkpoint(self, make: Make) -> None:
        model = make({"a.safetensors": one("x"), "b.safetensors": one("y")})
        assert names(read_checkpoint(str(model / "b.safetensors")), model) == ["b.safetensors"]

    def test_a_list_of_files_keeps_its_order(self, make: Make) -> None:
        model = make({"a.safetensors": one("x"), "b.safetensors": one("y"), INDEX: {"z": "c.safetensors"}})
        checkpoint = read_checkpoint([model / "b.safetensors", str(model / "a.safetensors")])
        assert names(checkpoint, model) == ["b.safetensors", "a.safetensors"]

    def test_a_path_may_be_relative_to_the_working_directory(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(make({"a.safetensors": one("x"), INDEX: {"x": "a.safetensors"}}))
        for source in (".", "a.safetensors", INDEX):
            assert list(read_checkpoint(source).tensors) == ["x"]

    def test_a_file_that_is_named_twice_is_read_once(self, make: Make) -> None:
        path = make({"a.safetensors": one("x")}) / "a.safetensors"
        checkpoint = read_checkpoint([path, path])
        assert (len(checkpoint.shards), checkpoint.warnings) == (1, ())

    def test_a_repository_of_a_hub_cache_stands_for_its_snapshot_of_main(self, tmp_path: Path) -> None:
        repository = tmp_path / "models--org--name"
        for revision in ("old", "new"):
            (repository / "snapshots" / revision).mkdir(parents=True)
            (repository / "snapshots" / revision / "model.safetensors").write_bytes(one(revision))
        with pytest.raises(UsageError, match="has 2 snapshots; name one: 'new', 'old'"):
            read_checkpoint(repository)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("new")
        assert list(read_checkpoint(repository).tensors) == ["new"]

    def test_an_empty_list_is_refused(self) -> None:
        with pytest.raises(UsageError, match="the list of files is empty"):
            read_checkpoint([])

    def test_a_missing_path_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match=re.escape(f"{tmp_path / 'model'} does not exist")):
            read_checkpoint(tmp_path / "model")

    def test_links_of_a_snapshot_to_blobs_are_followed(self, tmp_path: Path) -> None:
        snapshot = self._snapshot(tmp_path)
        (tmp_path / "blobs" / "abc").write_bytes(one("x"))
        checkpoint = read_checkpoint(snapshot)
        assert names(checkpoint, snapshot) == ["a.safetensors"]
        assert checkpoint.shards[0].identity.inode == (tmp_path / "blobs" / "abc").stat().st_ino

    def test_a_link_to_a_missing_blob_is_named_with_its_target(self, tmp_path: Path) -> None:
        with pytest.raises(
            NotFound, match=r"a\.safetensors is missing: it is a link to \.\./\.\./blobs/abc, which does not exist"
        ):
            read_checkpoint(self._snapshot(tmp_path))

    @staticmethod
    def _snapshot(root: Path) -> Path:
        snapshot = root / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (root / "blobs").mkdir()
        write_index(root / "blobs" / "def", {"x": "a.safetensors"})
        (snapshot / "a.safetensors").symlink_to("../../blobs/abc")
        (snapshot / INDEX).symlink_to("../../blobs/def")
        return snapshot


class TestReplacedFiles:
    @pytest.fixture
    def path(self, make: Make) -> Path:
        return make({"a.safetensors": one("x", b"before")}) / "a.safetensors"

    def test_an_unchanged_file_can_be_opened_again(self, path: Path) -> None:
        (shard,) = read_checkpoint(path).shards
        descriptor = shard.open()
        try:
            tensor = shard.tensors[0]
            assert os.pread(descriptor, tensor.size, tensor.start) == b"before"
            assert not os.get_inheritable(descriptor)
            shard.check(descriptor)
        finally:
            os.close(descriptor)

    def test_another_file_at_the_path_is_refused(self, path: Path) -> None:
        (shard,) = read_checkpoint(path).shards
        other = path.with_name("other")
        other.write_bytes(path.read_bytes())
        os.utime(other, ns=(0, path.stat().st_mtime_ns))
        other.replace(path)
        self.refused(shard.open, path)

    def test_a_modified_file_is_refused(self, path: Path) -> None:
        (shard,) = read_checkpoint(path).shards
        descriptor = shard.open()
        try:
            path.write_bytes(one("x", b"behind"))
            os.utime(path, ns=(0, shard.identity.mtime_ns + 1))
            self.refused(lambda: shard.check(descriptor), path)
        finally:
            os.close(descriptor)
        self.refused(shard.open, path)

    def test_a_refused_file_is_closed(self, path: Path) -> None:
        (shard,) = read_checkpoint(path).shards
        path.write_bytes(b"")
        before = os.listdir("/proc/self/fd")
        self.refused(shard.open, path)
        assert os.listdir("/proc/self/fd") == before

    @pytest.mark.parametrize("changed", ["a.safetensors", INDEX])
    def test_a_file_that_is_modified_while_it_is_read_is_refused(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, changed: str
    ) -> None:
        path = make({"a.safetensors": one("x"), INDEX: {"x": "a.safetensors"}}) / changed
        real = os.pread

        def pread(descriptor: int, count: int, offset: int) -> bytes:
            if os.path.sameopenfile(descriptor, watched):
                os.utime(path, ns=(0, 0))
            return real(descriptor, count, offset)

        monkeypatch.setattr(os, "pread", pread)
        watched = os.open(path, os.O_RDONLY)
        try:
            self.refused(lambda: read_checkpoint(path.parent), path)
        finally:
            os.close(watched)

    @staticmethod
    def refused(action: Callable[[], object], path: Path) -> None:
        with pytest.raises(FileReplaced, match="was replaced or modified since it was first read") as caught:
            action()
        assert (caught.value.path, caught.value.exit_code, caught.value.retryable) == (str(path), 75, True)


def test_natural_order_sorts_numbers_by_value() -> None:
    order = ["9", "10", "a", "a-9", "a-9b", "a-10", "b-01", "b-1", "²"]
    shuffled = order[4:] + order[:4]
    assert sorted(shuffled, key=natural) == order
