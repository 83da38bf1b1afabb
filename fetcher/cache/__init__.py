"""The cache as its users see it. Commands use the store only through this package.

Knows the complete artifacts of a root, when they were last used, and who builds them, and what a directory of another tool
holds. Decides nothing about a fetch: the engine does.
"""

from __future__ import annotations

from fetcher.cache.adopting import Adopted as Adopted
from fetcher.cache.adopting import adopt as adopt
from fetcher.cache.adopting import adoptable as adoptable
from fetcher.cache.collecting import gc as gc
from fetcher.cache.discarding import discard as discard
from fetcher.cache.expecting import expected as expected
from fetcher.cache.keeping import Standing as Standing
from fetcher.cache.keeping import hold as hold
from fetcher.cache.keeping import init as init
from fetcher.cache.keeping import pin as pin
from fetcher.cache.keeping import release as release
from fetcher.cache.keeping import unpin as unpin
from fetcher.cache.listing import Listed as Listed
from fetcher.cache.listing import Sorting as Sorting
from fetcher.cache.listing import in_order as in_order
from fetcher.cache.listing import listed as listed
from fetcher.cache.listing import named as named
from fetcher.cache.occupation import Occupation as Occupation
from fetcher.cache.occupation import Place as Place
from fetcher.cache.occupation import occupation as occupation
from fetcher.cache.occupation import occupied as occupied
from fetcher.cache.occupation import places_in_order as places_in_order
from fetcher.cache.pods import KubeletPods as KubeletPods
from fetcher.cache.removing import Pruned as Pruned
from fetcher.cache.removing import Removed as Removed
from fetcher.cache.removing import Rule as Rule
from fetcher.cache.removing import prune as prune
from fetcher.cache.removing import remove as remove
from fetcher.cache.repairing import repair as repair
from fetcher.engine.artifact_check import Sample as Sample
from fetcher.engine.artifact_check import VerifyReport as VerifyReport
from fetcher.engine.artifact_check import verify as verify
from fetcher.store.catalog import Entry as Entry
from fetcher.store.catalog import entries as entries
from fetcher.store.garbage import RESUMABLE as RESUMABLE
from fetcher.store.garbage import Garbage as Garbage
from fetcher.store.limits import MIN_IDLE as MIN_IDLE
from fetcher.store.limits import CacheLimits as CacheLimits
