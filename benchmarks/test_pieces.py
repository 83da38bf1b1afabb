"""The inner pieces, each alone: what the plain path spends beside receiving and writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fetcher.artifact import CHUNK_SIZE, ByteRange
from fetcher.engine.schedule import Schedule
from fetcher.integrity.frontier import chunk_digest
from fetcher.planning.ranges import LONGEST_RANGE, missing_ranges
from fetcher.store.journal import Journal


def test_planning_800_gb(benchmark: Any) -> None:
    size = 800 * 10**9
    ranges = benchmark(lambda: list(missing_ranges(size, held=(), longest=LONGEST_RANGE)))
    assert sum(map(len, ranges)) == size


def test_scheduling_2000_files(benchmark: Any) -> None:
    def schedule() -> int:
        queue, taken = Schedule(), 0
        for number in range(2000):
            queue.add(f"file-{number}", [ByteRange(0, 1000)], size=1000)
        while assignment := queue.take():
            queue.finish(assignment)
            taken += 1
        return taken

    assert benchmark(schedule) == 2000


def test_xxh3_of_a_chunk(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(b"\x5a" * CHUNK_SIZE)
    with path.open("rb") as stream:
        assert benchmark(chunk_digest, stream.fileno(), ByteRange(0, CHUNK_SIZE))


def test_a_journal_record(benchmark: Any, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", mode=0o644)
    benchmark(journal.chunk, "model-00001-of-00004.safetensors", 7, "0" * 32)
    journal.close()
