"""The cache as its users see it. Commands use the store only through this package.

Knows the complete artifacts of a root, when they were last used, and who builds them. Decides nothing about a fetch: the engine
does.
"""

from __future__ import annotations

from fetcher.cache.expecting import expected as expected
from fetcher.cache.listing import Listed as Listed
from fetcher.cache.listing import Sorting as Sorting
from fetcher.cache.listing import in_order as in_order
from fetcher.cache.listing import listed as listed
from fetcher.cache.listing import named as named
from fetcher.cache.repairing import repair as repair
from fetcher.engine.artifact_check import Sample as Sample
from fetcher.engine.artifact_check import VerifyReport as VerifyReport
from fetcher.engine.artifact_check import verify as verify
from fetcher.store.catalog import Entry as Entry
from fetcher.store.catalog import entries as entries
