"""The store of artifacts: layout, leases, ingest, commit. Its modules implement this lifecycle:

::

    lease       one owner for each key builds in staging; its heartbeat is a counter
    ingest      each file is written at offsets into its own new inode; the journal records finished chunks
    seal        sync the data, sync the directories bottom-up, write and sync the manifest inside staging
    place       one rename (keyed), or file by file with the manifest last (in place, hf-cache)
    visible     only after all this, and only verified content; a repair is a new inode and a rename, never a write

After a kill at any point, the next owner of the lease continues from the journal or the sealed manifest.

What is synced, and when:

- A chunk's journal line is appended after its write, unsynced. A SIGKILL loses nothing of it. A begun chunk is noted every 4
  MiB.
- Data, then the journal, are synced every 32 chunks. Power loss may take journalled data all the same, so a resume reads and
  compares each chunk.
- A file stays open from its first range until it is sealed, so that no write-back error is lost. At most 64 files are open.
- Before a manifest is sealed, every file was synced and closed, then every staging directory bottom-up, then the manifest.
  Then follow the rename and a sync of both parents. A file whose fsync failed is fetched again into a new inode, once.

Decisions that may surprise:

- An in-place directory has one lease, not one for each key: two artifacts that go to one directory take turns.
- The manifest holds a redacted URI and the SHA-256 of the request as written, by which a cached artifact is recognized.
- Artifacts that share a directory (`shared_dest`, for LLMKube) have a manifest each. None deletes what another lists. A
  manifest that a new one contradicts is withdrawn first.
- In place, files that announce a model are withdrawn before weights change, so they are fetched again. They are small.
- A summary lies beside each manifest, committed just before it. Lists read it. What decides about a file reads the manifest.
- A file that another artifact has is compared by the XXH3 of its chunks, not by its digest: its manifest proves those.
- Files without a published digest are recorded without one: size and framing are checked in transit, XXH3 afterwards.
"""
