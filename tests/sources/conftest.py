"""One server of each kind for all tests of sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sources.stores import AzureServer, GcsServer, azure_server, gcs_server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    with gcs_server(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    with azure_server(tmp_path_factory.mktemp("azure")) as server:
        yield server
