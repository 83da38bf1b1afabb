"""The store of artifacts: layout, leases, ingest, commit. Its modules implement this lifecycle:

::

    lease       one owner for each key builds in staging; its heartbeat is a counter
    ingest      each file is written at offsets into its own new inode; the journal records finished chunks
    seal        sync the data, sync the directories bottom-up, write and sync the manifest inside staging
    place       one rename (keyed), or file by file with the manifest last (in place, hf-cache)
    visible     only after all this, and only verified content; a repair is a new inode and a rename, never a write

After a kill at any point, the next owner of the lease continues from the journal or the sealed manifest.
"""
