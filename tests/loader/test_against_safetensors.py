"""The reader agrees with the safetensors package: it returns the same bytes, and refuses every file that the package refuses.

It refuses more only in the cases of `tests.loader.corpus.STRICTER`, which give reasons. WEIGHTLIFT_FUZZ_EXAMPLES sets the
number of files that each fuzz test generates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from safetensors import SafetensorError, safe_open

from loader.checkpoint.dtypes import DTYPES
from loader.checkpoint.index import read_checkpoint, read_shard
from loader.errors import MalformedCheckpoint
from tests.loader import fuzz
from tests.loader.corpus import Refused, Stricter, each_read, each_refused, each_stricter
from tests.loader.making import content, entry, read_by_the_package, shard

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]
"""Name to dtype, shape and bytes."""

EXAMPLES = int(os.environ.get("WEIGHTLIFT_FUZZ_EXAMPLES", "150"))

fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
patient = pytest.mark.timeout(0 if "WEIGHTLIFT_FUZZ_EXAMPLES" in os.environ else 120)

OUR_OWN_REASONS = re.compile(
    r"duplicate key|a NUL character|'dtype' .*is not a dtype|"
    r"\.dtype: \{.*is not a dtype of safetensors|: \[.*is not a JSON object"
)
"""The messages of the errors in the cases of STRICTER."""


def ours(whole: bytes, path: Path) -> Tensors:
    """Raises MalformedCheckpoint."""
    path.write_bytes(whole)
    return {
        name: (tensor.dtype.name, tensor.shape, whole[tensor.start : tensor.stop])
        for name, tensor in read_checkpoint(path).tensors.items()
    }


def theirs(whole: bytes) -> Tensors:
    """Raises SafetensorError."""
    tensors = read_by_the_package(whole)
    return {name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"])) for name, tensor in tensors.items()}


def compare(whole: bytes, path: Path) -> bool:
    """Check that both readers agree. Return whether they accept the file."""
    try:
        read = ours(whole, path)
    except MalformedCheckpoint as error:
        if not OUR_OWN_REASONS.search(str(error)):
            with pytest.raises(SafetensorError):
                theirs(whole)
        return False
    assert read == theirs(whole)
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


class TestEdgeCases:
    @each_read
    def test_both_readers_return_the_same_tensors(self, path: Path, whole: bytes) -> None:
        assert ours(whole, path) == theirs(whole)

    @each_refused
    def test_the_package_refuses_every_file_that_this_reader_refuses(self, path: Path, case: Refused) -> None:
        path.write_bytes(case.content)
        with pytest.raises(SafetensorError):
            theirs(case.content)
        with pytest.raises(SafetensorError), safe_open(path, framework="numpy"):
            pass

    @each_stricter
    def test_stricter_refusals_have_their_own_messages(self, path: Path, case: Stricter) -> None:
        with pytest.raises(MalformedCheckpoint, match=re.escape(case.words)) as caught:
            ours(case.content, path)
        assert OUR_OWN_REASONS.search(str(caught.value))

    def test_arrays_equal_those_of_safe_open(self, path: Path) -> None:
        header, data = {}, b""
        for dtype in DTYPES.values():
            if dtype.numpy and dtype.name != "BOOL":
                size = 6 * dtype.bits // 8
                header[dtype.name] = entry(dtype.name, [2, 3], len(data), len(data) + size)
                data += os.urandom(size)
        whole = content(header, data)
        path.write_bytes(whole)
        with safe_open(path, framework="numpy") as opened:
            for name, tensor in read_checkpoint(path).tensors.items():
                array = np.frombuffer(whole[tensor.start : tensor.stop], tensor.dtype.numpy).reshape(tensor.shape)
                assert opened.get_tensor(name).dtype == array.dtype
                assert opened.get_tensor(name).tobytes() == array.tobytes()

    def test_metadata_equals_that_of_safe_open(self, path: Path) -> None:
        path.write_bytes(content({"__metadata__": {"format": "pt", "ü": "\n"}}))
        with safe_open(path, framework="numpy") as opened:
            assert opened.metadata() == read_shard(str(path)).metadata


class TestSeveralFiles:
    """Engines open the shards in order with the package, and keep the last tensor of each name."""

    def test_a_tensor_in_several_files_is_read_from_the_same_file(self, tmp_path: Path) -> None:
        contents = [{"x": b"1", "tied": b"22"}, {"tied": b"333", "y": b"4"}, {"z": b"5", "x": b"66"}]
        theirs: dict[str, bytes] = {}
        for number, tensors in enumerate(contents, 1):
            file = tmp_path / f"model-0000{number}-of-00003.safetensors"
            file.write_bytes(shard(tensors))
            with safe_open(file, framework="numpy") as opened:
                names = opened.keys()
                theirs |= {name: opened.get_tensor(name).tobytes() for name in names}
        read = read_checkpoint(tmp_path)
        assert {t.name: Path(t.file).read_bytes()[t.start : t.stop] for t in read.tensors.values()} == theirs
        assert read.warnings[0].startswith("2 tensor names in more than one file, such as ")


@patient
class TestGeneratedFiles:
    @fuzzed
    @given(fuzz.valid_files())
    def test_both_readers_return_the_same_bytes_of_valid_files(self, path: Path, whole: bytes) -> None:
        assert compare(whole, path)

    @fuzzed
    @given(fuzz.files_with_wrong_values())
    def test_both_readers_agree_about_wrong_values(self, path: Path, whole: bytes) -> None:
        compare(whole, path)

    @fuzzed
    @given(fuzz.files_with_wrong_bytes())
    def test_both_readers_agree_about_wrong_bytes(self, path: Path, whole: bytes) -> None:
        compare(whole, path)

    @fuzzed
    @given(fuzz.files_with_wrong_text())
    def test_both_readers_agree_about_wrong_text(self, path: Path, whole: bytes) -> None:
        compare(whole, path)
