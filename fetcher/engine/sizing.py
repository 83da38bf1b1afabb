"""The size of a transfer: its connections, descriptors, threads, buffers and share of the page cache."""

from __future__ import annotations

from collections.abc import Sequence

from fetcher.artifact import RemoteFile, total_size
from fetcher.engine.concurrency import START
from fetcher.engine.hashing import hash_threads
from fetcher.engine.incoming import Incoming
from fetcher.engine.pace import RateLimit
from fetcher.engine.receiving import write_threads
from fetcher.engine.retry import Patience
from fetcher.engine.transfer import Limits, Transfer
from fetcher.events import Planned, Subscriber
from fetcher.host.descriptors import free_descriptors
from fetcher.host.memory import memory_left
from fetcher.host.processors import cpu_count
from fetcher.integrity.lanes import MOST, in_line
from fetcher.planning.descriptors import plan_descriptors
from fetcher.planning.memory import plan_memory, thread_buffer
from fetcher.settings import Settings
from fetcher.sources.base import Guide, Source
from fetcher.store.ingest import StagedFile
from fetcher.store.journal import Journal
from fetcher.store.lease import Lease

LEAST_ROOM = 64 * 1024 * 1024
"""Minimum bytes of page cache to count on, however small the cgroup: a chunk of each of four files."""


def transfer_of(
    staged: Sequence[StagedFile],
    *,
    files: Sequence[RemoteFile],
    held: int,
    source: Source,
    lease: Lease,
    journal: Journal,
    settings: Settings,
    patience: Patience,
    guide: Guide | None = None,
    on_event: Subscriber,
) -> Transfer:
    """Return the transfer that completes `staged`, and announce its plan: of `files`, `held` bytes are present already."""
    threads = cpu_count()
    # Only one thread hashes a file so. With fewer files than threads the follower uses more processors.
    hashing_in_line = len(staged) >= min(START, 2 * threads, settings.max_concurrency) and in_line(len(staged))
    descriptors = plan_descriptors(free_descriptors(), connections=settings.max_concurrency, hash_threads=hash_threads(threads))
    writing = write_threads(threads)
    memory = plan_memory(
        settings.memory_limit,
        connections=descriptors.connections,
        hash_threads=descriptors.hash_threads,
        write_threads=writing,
    )
    on_event(Planned(len(files), total_size(files), held, memory.connections))
    drop_pages = drops_pages(files, settings)
    streams = 1 if hashing_in_line else len(staged)
    limits = Limits(
        connections=memory.connections,
        files=descriptors.files,
        buffers=memory.buffers,
        buffer_size=memory.buffer,
        hash_lag=_page_cache(settings) // 4,
        write_threads=writing,
        write_buffer=thread_buffer(settings.memory_limit, writing),
        hashed_together=1 if hashing_in_line else MOST,
        hash_threads=descriptors.hash_threads,
        timeout_stall=settings.timeout_stall,
    )
    return Transfer(
        [Incoming(each, streams=streams, in_line=hashing_in_line, drop_pages=drop_pages) for each in staged],
        source=source,
        lease=lease,
        journal=journal,
        limits=limits,
        rate=RateLimit(settings.limit_rate),
        patience=patience,
        guide=guide,
        on_event=on_event,
    )


def drops_pages(files: Sequence[RemoteFile], settings: Settings) -> bool:
    """Return whether written pages are dropped as they are synced: the page cache has no room for all of `files`."""
    how = settings.page_cache
    return how == "drop" or (how == "auto" and total_size(files) > _page_cache(settings))


def _page_cache(settings: Settings) -> int:
    """Return the bytes of page cache to count on."""
    return max(LEAST_ROOM, memory_left().pages.bytes - settings.memory_limit)
