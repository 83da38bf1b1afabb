"""KServe's variables for object stores: `storage-initializer` beside KServe's own on the same servers.

One table of situations for three stores. Intended differences are below, each with its reason.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
import trustme

from tests.dropins.archives import zipped
from tests.dropins.conftest import FILES
from tests.dropins.stores import Store, in_azure, in_gcs, in_s3
from tests.dropins.test_kserve_differential import Outcome, Situation, outcome
from tests.lab.command import STORAGE_INITIALIZER
from tests.lab.proxy import running_proxy
from tests.lab.seaweed import S3Server
from tests.lab.stores import AzureServer, azure_server

pytestmark = pytest.mark.timeout(600)  # the first test installs KServe's package


class Both(Protocol):
    def __call__(self, source: str, env: Mapping[str, str]) -> tuple[Outcome, Outcome]: ...


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def cloud(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureServer]:
    """azurite under the name that it has in Azure's cloud."""
    with azure_server(tmp_path_factory.mktemp("cloud"), authority) as server:
        yield server


@pytest.fixture(params=["s3", "gcs", "azure"])
def store(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> Iterator[Store]:
    name = f"models-{uuid.uuid4().hex[:12]}"
    match request.param:
        case "s3":
            server: S3Server = request.getfixturevalue("s3_server")
            yield in_s3(server, request.getfixturevalue("s3_client"), request.getfixturevalue("bucket"))
        case "gcs":
            yield in_gcs(request.getfixturevalue("gcs"), name)
        case "azure":
            azure: AzureServer = request.getfixturevalue("cloud")
            authority.cert_pem.write_to_path(str(tmp_path / "cabundle.crt"))
            with running_proxy({f"{azure.host}:443": azure.port}) as proxy:
                yield in_azure(azure, proxy, tmp_path, name)


@pytest.fixture
def both(kserve_command: tuple[str, ...], tmp_path: Path) -> Both:
    def run(source: str, env: Mapping[str, str]) -> tuple[Outcome, Outcome]:
        """Return the outcomes of KServe and of ours."""
        situation = Situation([source], env)
        theirs = outcome(kserve_command, situation, tmp_path / "kserve")
        return theirs, outcome(STORAGE_INITIALIZER, situation, tmp_path / "ours")

    return run


BESIDE: Mapping[str, bytes] = {"models/other/x": b"1", "models/one.bin": b"weights", "models/packed.zip": zipped(FILES)}
EQUAL: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "a prefix": ("models/llama", {}),
    "a prefix with a slash": ("models/llama/", {}),
    "an object": ("models/one.bin", {}),
    "an archive": ("models/packed.zip", {}),
    "objects that a pattern allows": ("models/llama", {"STORAGE_ALLOW_PATTERNS": "*.json,*vocab*"}),
    "objects that no pattern ignores": ("models/llama", {"STORAGE_IGNORE_PATTERNS": '["*.md", "tokenizer/*"]'}),
}
"""What is fetched, and with which variables. Both produce the same files."""


@pytest.mark.parametrize("name", EQUAL)
def test_both_produce_the_same_files(name: str, both: Both, store: Store) -> None:
    path, env = EQUAL[name]
    store.publish(FILES, below="models/llama")
    theirs, ours = both(f"{store.publish(BESIDE)}{path}", {**store.env, **env})
    assert (theirs.code, ours.code) == (0, 0), (theirs.log, ours.log)
    assert ours.trees == theirs.trees != [{}]


def test_both_refuse_a_prefix_without_objects(both: Both, store: Store) -> None:
    theirs, ours = both(f"{store.publish(BESIDE)}nothing/there", store.env)
    assert (theirs.code != 0, ours.code, ours.trees) == (True, 66, [{}]), ours.log


class TestIntendedDifferences:
    def test_only_ours_leaves_out_what_only_begins_alike(self, both: Both, store: Store) -> None:
        """KServe matches the prefix as text (not in GCS): `models/llama` is also the beginning of `models/llama-old`."""
        store.publish({"models/llama-old/weights.bin": b"old"})
        theirs, ours = both(store.publish(FILES, below="models/llama"), store.env)
        assert (ours.code, ours.trees) == (0, [dict(FILES)])
        assert (theirs.trees == ours.trees) == store.address.startswith("gs://")

    def test_only_kserve_unpacks_an_archive_that_is_alone_below_a_prefix(self, both: Both, store: Store) -> None:
        """Ours unpacks what the address names as an archive: another object beside it must not change what it becomes."""
        theirs, ours = both(store.publish({"model.zip": zipped(FILES)}, below="models/llama"), store.env)
        assert (theirs.trees, ours.trees) == ([dict(FILES)], [{"model.zip": zipped(FILES)}])

    def test_only_ours_keeps_an_empty_file(self, both: Both, store: Store) -> None:
        """KServe drops it (not in GCS), although Python's packages have such files."""
        theirs, ours = both(store.publish({**FILES, "__init__.py": b""}, below="models/llama"), store.env)
        assert ours.trees == [{**FILES, "__init__.py": b""}]
        assert ("__init__.py" in theirs.trees[0]) == store.address.startswith("gs://")
