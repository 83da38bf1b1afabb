"""The request: artifact, settings and placement, decided once before anything is looked up or fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetcher.artifact import ArtifactRef
from fetcher.errors import UsageError
from fetcher.settings import Settings
from fetcher.sources.access import Access
from fetcher.sources.addresses import hub_folder
from fetcher.store.donors import Donors
from fetcher.store.keyed import Keyed
from fetcher.store.placement import Placement
from fetcher.store.selector import placement_for, recover
from fetcher.values import dataclass

if TYPE_CHECKING:
    from fetcher.store.room import Room


@dataclass(frozen=True, slots=True)
class Request:
    """One artifact and its placement. `placement` is None for `pvc://`, which is verified in place and never written.

    `credentials` are for its source; None: those of the process. `room`: that of the fetch of which this one is a part.
    """

    ref: ArtifactRef
    settings: Settings
    placement: Placement | None
    credentials: Access | None = None
    room: Room | None = None

    @property
    def placed(self) -> Placement:
        """The placement. Raises ValueError for a request without one."""
        if self.placement is None:
            raise ValueError(f"{self.ref.uri} has no placement")
        return self.placement


def choose_placement(ref: ArtifactRef, settings: Settings) -> Placement:
    """Return the placement of `ref`. Raises UsageError, CannotWrite."""
    folder, revision = hub_folder(ref)
    return placement_for(ref, settings, repository=folder, revision=revision)


def donors_for(settings: Settings, *, authenticated: bool) -> Donors | None:
    """Return the files of other artifacts that a fetch may share, `authenticated` if it uses a credential; None for none."""
    # In a destination of its own there are no other artifacts, or they share its files by their paths.
    if settings.dest is not None or settings.dedupe == "off":
        return None
    return Donors(settings.cache_dir, authenticated=authenticated)


def recover_and_request(ref: ArtifactRef, settings: Settings, credentials: Access | None = None) -> Request:
    """Complete the commit of a killed command at that place, then return the request. Raises FetchError."""
    if ref.uri.startswith("pvc://"):
        _refuse_parts(settings, None)
        return Request(ref, settings, None, credentials)
    recover(settings)
    placement = choose_placement(ref, settings)
    _refuse_parts(settings, placement)
    return Request(ref, settings, placement, credentials)


def _refuse_parts(settings: Settings, placement: Placement | None) -> None:
    if settings.part is None:
        return
    if not isinstance(placement, Keyed):
        raise UsageError(
            "--part is for an artifact in a cache of plain files, whose directory is not a mount point; give --cache-dir, and "
            "neither --dest, nor --layout hf-cache, nor pvc://"
        )
    if settings.expect_file is not None:
        raise UsageError("--part fetches a part of the files, --expect-file lists all of them; give one of them")
