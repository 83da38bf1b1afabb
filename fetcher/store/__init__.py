"""Where artifacts live: layout, leases, ingest, commit. The lifecycle, which every module here serves:

::

    lease       one owner a key builds in staging; its heartbeat is a counter
    ingest      each file is written at offsets into its own new inode; a journal tells which chunks are there
    seal        data synced, directories synced bottom-up, manifest written and synced inside staging
    place       one rename (keyed), or file by file with the manifest last (in place, hf-cache)
    visible     only now, and only what was verified; never written again, a repair is a new inode and a rename

Killed anywhere in between, the next owner of the lease goes on from the journal, or from the sealed manifest.
"""
