"""The same bytes from somewhere nearer: a source with mirrors, none of which is trusted. Begin with `mirrored`."""

from __future__ import annotations

from fetcher.sources.mirrors.mirrored import mirrored as mirrored
