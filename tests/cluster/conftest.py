"""The cluster of the tests has our kinds."""

from __future__ import annotations

import pytest

from tests.cluster.api import KUBECONFIG, cluster


@pytest.fixture(scope="session", autouse=True)
def _kinds() -> None:
    """Whichever test comes first on a new cluster."""
    if KUBECONFIG is not None:
        cluster().serve_kinds()
