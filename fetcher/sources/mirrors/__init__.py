"""The same bytes from somewhere nearer: a source with mirrors, none of which is trusted. Begin with `choosing`.

::

    swarmed     peers: other nodes. `guiding` joins what they have (`fetcher.peers`) to what to ask for next (`planning.swarm`)
    mirrored    caches in front of the source, and its other endpoints (`planning.suppliers`)
    the source
"""

from __future__ import annotations

from fetcher.sources.mirrors.choosing import mirrored as mirrored
