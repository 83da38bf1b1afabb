"""The fixtures of the client's tests: the cluster, its proxy, a namespace."""

from __future__ import annotations

from tests.cluster.client.conftest import api as api
from tests.cluster.client.conftest import front as front
from tests.cluster.client.conftest import namespace as namespace
from tests.cluster.client.conftest import plane as plane
from tests.cluster.client.conftest import shared_front as shared_front
from tests.cluster.client.conftest import unique as unique
