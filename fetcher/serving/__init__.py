"""Serves what a root has to other nodes: `fetcher serve`. Published artifacts, and chunks of fetches under way.

One thread has the idle connections (`connections`); requests are answered on others, which may block (`answering`).
What there is, and whether it may be sent now, says `fetcher.cache.offering`.
"""

from __future__ import annotations

from fetcher.certificates import CertificateFiles as CertificateFiles
from fetcher.serving.authorization import Authorization as Authorization
from fetcher.serving.authorization import Caller as Caller
from fetcher.serving.authorization import SharedSecret as SharedSecret
from fetcher.serving.authorization import Verdict as Verdict
from fetcher.serving.counts import Counts as Counts
from fetcher.serving.limits import ServingLimits as ServingLimits
from fetcher.serving.limits import Times as Times
from fetcher.serving.server import Server as Server
from fetcher.serving.server import Serving as Serving
from fetcher.serving.tokens import ApiServer as ApiServer
from fetcher.serving.tokens import TokenReview as TokenReview
