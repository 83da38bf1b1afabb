"""Trees of directories: which files of quantizations, pipelines and Hub caches are warmed, and that none is missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from fetcher.errors import NotFound, UsageError
from loader.checkpoint import trees
from loader.copying.artifacts import read_artifact
from loader.errors import MalformedCheckpoint
from loader.residency.model_files import model_files, present
from tests.loader.making import gguf, gguf_part, shard, write_index

SHARD = shard({"x": b"1"})
GGUF = gguf({"a": 100})


def write(root: Path, files: Mapping[str, bytes | Mapping[str, str]]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_index(path, content)
    return root


def files_of(*paths: Path, root: Path) -> list[str]:
    return [str(Path(member.path).relative_to(root)) for member in model_files([str(path) for path in paths])]


class TestTrees:
    def test_weights_are_taken_from_subdirectories_if_the_directory_has_none(self, tmp_path: Path) -> None:
        write(tmp_path, {"README.md": b"x", "Q4_K_M/a.gguf": GGUF, "deep/er/model.safetensors": SHARD, ".cache/a.gguf": b"?"})
        (tmp_path / ".fetcher").mkdir()
        assert files_of(tmp_path, root=tmp_path) == ["README.md", "Q4_K_M/a.gguf", "deep/er/model.safetensors"]

    def test_subdirectories_are_ignored_if_the_directory_has_weights(self, tmp_path: Path) -> None:
        write(tmp_path, {"model.safetensors": SHARD, "original/consolidated.00.pth": b"x", "onnx/model.onnx": b"x"})
        assert files_of(tmp_path, root=tmp_path) == ["model.safetensors"]

    def test_a_pipeline_consists_of_its_components(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "model_index.json": b"{}",
                "sd_xl_base_1.0.safetensors": SHARD,
                "scheduler/config.json": b"{}",
                "unet/diffusion_pytorch_model.safetensors": SHARD,
                "unet/diffusion_pytorch_model.fp16.safetensors": SHARD,
                "vae/diffusion_pytorch_model.bin": b"x",
            },
        )
        assert files_of(tmp_path, root=tmp_path) == [
            "model_index.json",
            "scheduler/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.bin",
        ]

    def test_an_incomplete_component_is_refused(self, tmp_path: Path) -> None:
        index = "unet/diffusion_pytorch_model.safetensors.index.fp16.json"
        write(tmp_path, {"model_index.json": b"{}", "vae/model.safetensors": SHARD, index: {"x": "gone.safetensors"}})
        with pytest.raises(NotFound, match=r"unet/gone\.safetensors is missing; .*index\.fp16\.json names it"):
            model_files([str(tmp_path)])

    def test_a_directory_without_weights_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"config.json": b"{}", "sub/config.json": b"{}"})
        with pytest.raises(NotFound, match="found no weights in"):
            model_files([str(tmp_path)])

    def test_links_out_of_the_tree_or_back_into_it_are_not_followed(self, tmp_path: Path) -> None:
        write(tmp_path, {"elsewhere/secret.gguf": GGUF, "root/Q4/a.gguf": GGUF})
        (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "root" / "Q4" / "back").symlink_to("..")
        assert files_of(tmp_path / "root", root=tmp_path) == ["root/Q4/a.gguf"]

    def test_a_tree_that_is_too_deep_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"/".join("abcdefghij") + "/a.gguf": GGUF})
        with pytest.raises(UsageError, match="levels deep"):
            model_files([str(tmp_path)])

    def test_a_tree_with_too_many_directories_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, {f"{number}/a.gguf": GGUF for number in range(5)})
        monkeypatch.setattr(trees, "_MOST", 4)
        with pytest.raises(UsageError, match="more than 4 directories"):
            model_files([str(tmp_path)])


class TestHubCaches:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> Path:
        for name in ("one", "two"):
            repository = tmp_path / f"models--org--{name}"
            write(repository, {f"blobs/{name}": SHARD, "refs/main": b"new", "refs/pr/1": b"pr", "blobs/half.incomplete": b"?"})
            for revision in ("new", "old", "pr"):
                (repository / "snapshots" / revision).mkdir(parents=True)
                link = repository / "snapshots" / revision / f"{revision}.safetensors"
                link.symlink_to(f"../../blobs/{name}")
        write(tmp_path, {".locks/models--org--one/x.lock": b"", "version.txt": b"1"})
        return tmp_path

    def test_a_cache_yields_the_snapshots_that_refs_name_and_each_blob_once(self, cache: Path) -> None:
        assert files_of(cache, root=cache) == [
            "version.txt",
            "models--org--one/snapshots/new/new.safetensors",
            "models--org--two/snapshots/new/new.safetensors",
        ]

    def test_a_repository_yields_the_snapshots_that_refs_name(self, cache: Path) -> None:
        assert files_of(cache / "models--org--one", root=cache) == ["models--org--one/snapshots/new/new.safetensors"]

    def test_a_repository_without_refs_yields_every_snapshot(self, cache: Path) -> None:
        repository = cache / "models--org--one"
        (repository / "refs" / "main").unlink()
        (repository / "refs" / "pr" / "1").unlink()
        assert len(files_of(repository, root=cache)) == 1


class TestIncomplete:
    @pytest.mark.parametrize(
        ("files", "missing"),
        [
            ({"m-00001-of-00003.gguf": GGUF, "m-00003-of-00003.gguf": GGUF}, "m-00002-of-00003.gguf"),
            ({"m-00002-of-00002.fp16.safetensors": SHARD}, "m-00001-of-00002.fp16.safetensors"),
            ({"pytorch_model-00001-of-00002.bin": b"x"}, "pytorch_model-00002-of-00002.bin"),
            ({"a.bin": b"x", "pytorch_model.bin.index.json": {"x": "a.bin", "y": "b.bin"}}, "b.bin"),
            ({"a.bin": b"x", "pytorch_model.bin.index.fp16.json": {"x": "a.bin", "y": "b.bin"}}, "b.bin"),
            ({"pytorch_model.bin.index.json": {"x": "a.bin"}}, "a.bin"),
            ({"model.safetensors.index.json": {"x": "a.safetensors"}}, "a.safetensors"),
            ({"a.safetensors": SHARD, "x.safetensors.index.fp16.json": {"x": "a.safetensors", "y": "b.safetensors"}}, "b.saf"),
        ],
    )
    def test_a_missing_file_is_named(self, tmp_path: Path, files: Mapping[str, bytes], missing: str) -> None:
        write(tmp_path, files)
        for refuse in (lambda: model_files([str(tmp_path)]), lambda: read_artifact(tmp_path)):
            with pytest.raises(NotFound, match=missing) as caught:
                refuse()
            for name in files:
                if name.endswith(".json"):
                    assert name in str(caught.value)

    def test_an_index_of_another_format_is_ignored_if_there_are_weights(self, tmp_path: Path) -> None:
        write(tmp_path, {"m.gguf": GGUF, "pytorch_model.bin.index.json": {"x": "a.bin"}})
        assert files_of(tmp_path, root=tmp_path) == ["pytorch_model.bin.index.json", "m.gguf"]
        assert len(read_artifact(tmp_path).items) == 2

    def test_a_truncated_gguf_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"Q8/m.gguf": gguf({"a": 5000})[:-100]})
        with pytest.raises(MalformedCheckpoint, match="truncated"):
            model_files([str(tmp_path)])

    def test_the_first_part_of_a_split_gguf_brings_the_others(self, tmp_path: Path) -> None:
        parts = [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
        write(tmp_path, dict.fromkeys(parts, GGUF))
        assert files_of(tmp_path / parts[0], root=tmp_path) == parts
        assert files_of(tmp_path / parts[1], root=tmp_path) == parts[1:2]
        (tmp_path / parts[1]).unlink()
        with pytest.raises(NotFound, match=parts[1]):
            model_files([str(tmp_path / parts[0])])


class TestSplitByHeader:
    """Renamed parts of a split GGUF."""

    PARTS: ClassVar = {"c.gguf": gguf_part(1, 3), "a.gguf": gguf_part(2, 3), "b.gguf": gguf_part(3, 3)}

    def test_the_first_part_brings_the_others_in_order_of_their_headers(self, tmp_path: Path) -> None:
        write(tmp_path, {**self.PARTS, "other.gguf": GGUF, "broken.gguf": b"?", "of-two.gguf": gguf_part(2, 2)})
        assert files_of(tmp_path / "c.gguf", root=tmp_path) == ["c.gguf", "a.gguf", "b.gguf"]
        assert files_of(tmp_path / "a.gguf", root=tmp_path) == ["a.gguf"]

    def test_a_directory_yields_all_parts(self, tmp_path: Path) -> None:
        write(tmp_path, self.PARTS)
        assert sorted(files_of(tmp_path, root=tmp_path)) == ["a.gguf", "b.gguf", "c.gguf"]

    @pytest.mark.parametrize("name", ["", "c.gguf"])
    def test_a_missing_part_is_named_by_its_number(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, self.PARTS)
        (tmp_path / "a.gguf").unlink()
        with pytest.raises(NotFound, match=r"part 2 of 3 is missing: .*gguf is part \d of 3 by its header; fetch"):
            model_files([str(tmp_path / name)])

    def test_two_files_with_the_same_part_number_are_ambiguous(self, tmp_path: Path) -> None:
        write(tmp_path, {**self.PARTS, "again.gguf": gguf_part(2, 3)})
        with pytest.raises(UsageError, match=r"a\.gguf.* and .*again\.gguf.* are both part 2 of 3 by their headers; name"):
            model_files([str(tmp_path / "c.gguf")])

    def test_a_name_that_contradicts_the_header_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"m-00001-of-00002.gguf": gguf_part(2, 2), "m-00002-of-00002.gguf": gguf_part(1, 2)})
        with pytest.raises(MalformedCheckpoint, match="its name says part 1 of 2, but its header says part 2 of 2; rename"):
            model_files([str(tmp_path)])

    def test_a_set_with_its_original_names_is_found_by_name(self, tmp_path: Path) -> None:
        parts = {f"m-0000{number}-of-00002.gguf": gguf_part(number, 2) for number in (1, 2)}
        write(tmp_path, {**parts, "n-00001-of-00002.gguf": gguf_part(1, 2)})
        assert files_of(tmp_path / "m-00001-of-00002.gguf", root=tmp_path) == list(parts)


class TestPageCacheCommands:
    def test_two_files_may_have_the_same_tensor(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.safetensors": SHARD, "b.safetensors": SHARD})
        assert files_of(tmp_path, root=tmp_path) == ["a.safetensors", "b.safetensors"]

    def test_broken_and_incomplete_files_can_be_dropped(self, tmp_path: Path) -> None:
        write(tmp_path, {"m-00001-of-00002.safetensors": b"broken", "sub/x.gguf": b"broken", "m.bin": b"x"})
        assert len(present([str(tmp_path)])) == 3
