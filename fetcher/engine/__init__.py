"""From a reference to a complete artifact: resolve, plan, transfer, verify, commit.

`fetching` is the entry point, `pipeline` the life of one fetch. The engine uses the contracts of sources and stores, and
reports by events. It renders nothing.

What makes it fast, and what decides that a fast path is taken:

- Connections: `concurrency` doubles their number while that brings 6 % more, else goes back. It takes fewer after 429 and 503,
  after broken connections, and when answers come ever later. `tests/engine/link.py` is a model of a link in simulated time.
- Hashing: `hashing` moves up to 16 files in the lanes of a vector unit. Writing threads have a lower priority than hashing
  threads, for which the end waits. No range is begun while much waits to be hashed.
- The tail: an idle connection steals the later half of the range that would last longest.
- Page cache: kept, or written back piece by piece and dropped behind the hash frontier (`--page-cache`).

Decisions that may surprise:

- A source never retries. The engine lends its patience to the source: `Source.list` makes each request through `ask`, so that a
  page is retried and not the whole listing.
- Only a body can trickle. An answer may take `--timeout-stall`, and a connection's time counts from the first byte of its body:
  a cold mirror would begin again with each aborted request. A connection without siblings is never called slow, only dead
  (64 KiB in `--timeout-stall`). Ranges of the same file that finished lately are siblings; those of other files are not.
- The lease shows life while a source lists, which may take as long as unpacking an archive.
- `--refresh on-change` asks for at most 15 seconds when a complete copy is here: a pod's start waits for it.
- A source may be made of another one: `fetch_uncached(source=...)` takes one that renames (`dropins.renaming`), and the engine
  does not know it. It knows sources that are packed (`sources.base.Packed`), since their archives need the lease and the room
  of the artifact (`unpacking`); an archive that a drop-in names is such a source (`dropins.unpacking`).
- The sizes of packed files are known one by one, while they are unpacked. So each has its room before it is written, and a
  fetch can be refused in the middle. It leaves nothing then, unless waiting helps: archives stay for the next attempt.
"""

from __future__ import annotations

from fetcher.engine.fetching import fetch as fetch
from fetcher.engine.fetching import fetch_uncached as fetch_uncached
from fetcher.engine.fetching import find_cached as find_cached
from fetcher.engine.request import Request as Request
from fetcher.engine.request import recover_and_request as recover_and_request
from fetcher.engine.result import Artifact as Artifact
