"""The API server as agent and controller speak with it, over aiohttp: objects, watches, leases.

Why not a library: agent and controller decide what to remove from complete lists. kopf 1.45 lists again after a broken watch
and reports no object that was deleted meanwhile, so its cache would keep what is gone. The official client and
kubernetes_asyncio take 55 and 72 MiB of memory, kr8s has no bookmarks.
"""

from __future__ import annotations

from cluster.client.access import ApiAccess as ApiAccess
from cluster.client.access import in_cluster as in_cluster
from cluster.client.api import Api as Api
from cluster.client.endpoints import Endpoint as Endpoint
from cluster.client.endpoints import endpoint_of as endpoint_of
from cluster.client.errors import ApiError as ApiError
from cluster.client.errors import Conflict as Conflict
from cluster.client.errors import Forbidden as Forbidden
from cluster.client.errors import Gone as Gone
from cluster.client.errors import Invalid as Invalid
from cluster.client.errors import Missing as Missing
from cluster.client.errors import Unavailable as Unavailable
from cluster.client.kubeconfig import of_kubeconfig as of_kubeconfig
from cluster.client.telling import tell as tell
from cluster.client.watching import Watched as Watched
