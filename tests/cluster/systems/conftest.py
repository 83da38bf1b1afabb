"""The stage of the controller, its Hub, and the kubelet of Jobs."""

from __future__ import annotations

from tests.cluster.agent.conftest import directory as directory
from tests.cluster.controller.conftest import cluster as cluster
from tests.cluster.controller.conftest import kubelet as kubelet
from tests.cluster.controller.conftest import origin as origin
