"""A fetch under way as another process sees it: what its journal says counts while its lease counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import xxhash

from fetcher.artifact import CHUNK_SIZE, ORIGIN, UNKNOWN, Digest, RemoteFile
from fetcher.cache import open_chunk as opening
from fetcher.cache.open_chunk import PIECE, compared
from fetcher.filesystem import filled
from fetcher.store import following as module
from fetcher.store import lease as leases
from fetcher.store.following import Following, StagedChunk
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal, JournalledChunk
from fetcher.store.lease import Lease, acquire, take_over
from fetcher.testing.checkpoint import random_bytes

LISTING, OTHER = "ab" * 32, "cd" * 32
DATA = random_bytes("following", 1000)
FILE = RemoteFile("sub/a.bin", CHUNK_SIZE + 1000, (Digest("sha256", "12" * 32),))


def written_by(supplier: str) -> JournalledChunk:
    return JournalledChunk(xxhash.xxh3_128_hexdigest(DATA), supplier=supplier)


class Owner:
    """The owner of a lease, with one staged file: its last chunk is written."""

    def __init__(self, staging: Path) -> None:
        lease = acquire(staging, "0123456789abcdef", stale=60.0)
        assert lease is not None
        self.lease = lease
        self.journal = Journal(lease.journal_path, mode=0o644, version="1")
        self.journal.listing(LISTING)
        self.staged = StagedFile.create(FILE, lease.data / FILE.path, self.journal)
        self.write()

    def write(self, supplier: str = ORIGIN) -> None:
        self.staged.write(CHUNK_SIZE, memoryview(DATA))
        self.staged.finish_chunk(1, written_by(supplier))

    def close(self) -> None:
        self.staged.close()
        self.journal.close()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    staging = tmp_path / ".fetcher" / "staging"
    staging.mkdir(parents=True)
    owner = Owner(staging)
    yield owner
    owner.close()
    owner.lease.release()


@pytest.fixture
def following(owner: Owner) -> Following:
    return Following(owner.lease.directory)


def bytes_of(chunk: StagedChunk | None) -> bytes | None:
    if chunk is None:
        return None
    into = memoryview(bytearray(PIECE))
    found = compared(chunk, into)
    if found is None:
        return None
    with closing(found):
        return bytes(found.read(chunk.part.start, into)[1])


def test_a_journalled_chunk_is_read_as_it_was_written(following: Following) -> None:
    assert bytes_of(following.chunk(LISTING, FILE.path, 1)) == DATA


@pytest.mark.parametrize(
    ("listing", "path", "index"),
    [(OTHER, FILE.path, 1), (LISTING, "sub/b.bin", 1), (LISTING, FILE.path, 0), (LISTING, FILE.path, 2)],
    ids=["of another listing", "of another file", "not finished", "beyond the file"],
)
def test_another_chunk_is_none(following: Following, listing: str, path: str, index: int) -> None:
    assert following.chunk(listing, path, index) is None


END: dict[str, Callable[[Owner], object]] = {
    "the chunk is wrong": lambda owner: owner.staged.drop_chunk(1),
    "the file is dropped": lambda owner: owner.staged.discard(),
    "the file begins anew": lambda owner: owner.staged.restart(),
    "the lease is released": lambda owner: owner.lease.release(),
    "the lease is dissolved": lambda owner: owner.lease.dissolve(),
    "the owner is gone": lambda owner: vars(leases)["_HELD"].discard(owner.lease.owner),
    "the source lists something else": lambda owner: owner.journal.listing(OTHER),
    "the source lists it again, and nothing of it is confirmed yet": lambda owner: owner.journal.listing(LISTING),
}


@pytest.mark.parametrize("end", END.values(), ids=END)
def test_a_chunk_is_withdrawn_when(owner: Owner, following: Following, end: Callable[[Owner], object]) -> None:
    assert following.chunk(LISTING, FILE.path, 1) is not None
    end(owner)
    assert following.chunk(LISTING, FILE.path, 1) is None


@pytest.mark.parametrize("end", [name for name in END if not name.startswith(("the lease", "the owner"))])
def test_what_is_recorded_while_a_chunk_is_read_counts(owner: Owner, following: Following, end: str) -> None:
    chunk = following.chunk(LISTING, FILE.path, 1)
    assert chunk is not None
    assert following.still(chunk, LISTING, FILE.path, 1)
    END[end](owner)
    assert not following.still(chunk, LISTING, FILE.path, 1)


def test_a_chunk_that_is_written_again_is_back(owner: Owner, following: Following) -> None:
    owner.staged.drop_chunk(1)
    assert following.chunk(LISTING, FILE.path, 1) is None
    owner.write()
    assert bytes_of(following.chunk(LISTING, FILE.path, 1)) == DATA


def test_after_a_takeover_only_what_the_new_owner_records_counts(owner: Owner, following: Following) -> None:
    assert following.chunk(LISTING, FILE.path, 1) is not None
    owner.lease.release()
    seen = leases.observe(owner.lease.directory)
    assert seen is not None
    successor = take_over(owner.lease.directory, seen, stale=60.0)
    assert isinstance(successor, Lease)
    assert following.chunk(LISTING, FILE.path, 1) is None
    journal = Journal(successor.journal_path, mode=0o644, version="1")
    journal.listing(LISTING)
    staged = StagedFile.reopen(FILE, successor.data / FILE.path, journal)
    assert staged is not None
    assert following.chunk(LISTING, FILE.path, 1) is None
    staged.finish_chunk(1, written_by(ORIGIN))
    assert bytes_of(following.chunk(LISTING, FILE.path, 1)) == DATA
    staged.close()
    journal.close()
    successor.release()


def test_an_owner_that_is_silent_for_half_the_stale_time_counts_as_gone(
    owner: Owner, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    for later, there in ((0.0, True), (29.0, True), (31.0, False)):
        now = 1000.0 + later
        assert (following.chunk(LISTING, FILE.path, 1) is not None) is there
    owner.lease.renew()
    assert following.chunk(LISTING, FILE.path, 1) is not None


def test_what_was_recorded_counts_while_the_owner_publishes(owner: Owner, following: Following) -> None:
    """Its journal and heartbeat are gone then, and the artifact is not there yet."""
    assert following.chunk(LISTING, FILE.path, 1) is not None
    owner.lease.prepare_to_place()
    assert bytes_of(following.chunk(LISTING, FILE.path, 1)) == DATA


@pytest.mark.parametrize("supplier", ["http://mirror:8650", UNKNOWN], ids=["a mirror", "nobody knows whom"])
def test_a_chunk_of_another_than_the_origin_is_passed_on_when_its_file_is_verified(
    owner: Owner, following: Following, supplier: str
) -> None:
    owner.write(supplier)
    assert following.chunk(LISTING, FILE.path, 1) is None
    owner.staged.finish_chunk(0, JournalledChunk("00" * 16))
    owner.staged.seal()
    assert bytes_of(following.chunk(LISTING, FILE.path, 1)) == DATA


class TestReadingWhatIsSent:
    def test_a_flipped_byte_is_not_sent(self, owner: Owner, following: Following) -> None:
        chunk = following.chunk(LISTING, FILE.path, 1)
        owner.staged.write(CHUNK_SIZE + 7, memoryview(bytes([DATA[7] ^ 1])))
        assert bytes_of(chunk) is None

    def test_a_file_that_is_cut_is_not_sent(self, owner: Owner, following: Following) -> None:
        chunk = following.chunk(LISTING, FILE.path, 1)
        with (owner.lease.data / FILE.path).open("r+b") as file:
            file.truncate(CHUNK_SIZE + 10)
        assert bytes_of(chunk) is None

    def test_a_file_that_is_replaced_while_it_is_read_is_not_sent(
        self, owner: Owner, following: Following, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def filled_and_replaced(descriptor: int, into: memoryview, position: int) -> bool:
            owner.staged.restart()
            return filled(descriptor, into, position)

        monkeypatch.setattr(opening, "filled", filled_and_replaced)
        chunk = following.chunk(LISTING, FILE.path, 1)
        assert bytes_of(chunk) is None

    def test_what_has_changed_since_it_was_compared_is_not_sent(self, owner: Owner, following: Following) -> None:
        chunk, into = following.chunk(LISTING, FILE.path, 1), memoryview(bytearray(PIECE))
        assert chunk is not None
        found = compared(chunk, into)
        assert found is not None
        with closing(found):
            assert found.read(CHUNK_SIZE, into)[1] == DATA
            owner.staged.write(CHUNK_SIZE + 7, memoryview(bytes([DATA[7] ^ 1])))
            with pytest.raises(EOFError):
                found.read(CHUNK_SIZE, into)

    def test_no_link_is_followed(self, owner: Owner, following: Following, tmp_path: Path) -> None:
        chunk = following.chunk(LISTING, FILE.path, 1)
        place = owner.lease.data / FILE.path
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
        assert bytes_of(chunk) is None
