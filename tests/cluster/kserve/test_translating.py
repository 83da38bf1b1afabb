"""A LocalModelNode as the NodeCache that it means, and KServe's Secrets as those of ModelCaches."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from cluster.credentials import access_of
from cluster.kserve.agent import Answers, Artifact, Identity, artifacts
from cluster.kserve.credentials import of_account, of_entry
from cluster.kserve.holding import Standing
from cluster.kserve.kinds import LOCAL_MODEL_NODE
from cluster.kserve.presence import agents_among
from cluster.kserve.reading import read_options
from cluster.kserve.translating import Meant, Pin, lies_elsewhere, model_document, node_document, spec_of
from cluster.resources import MODEL_CACHE, NODE_CACHE
from cluster.resources.model import Auth, SecretName
from fetcher.errors import ConfigurationError
from fetcher.sources.access import HttpAccess
from fetcher.sources.s3.access import S3Access
from tests.cluster.kserve.worlds import URI, entry, group

ROOT = PurePosixPath("/mnt/models/models")
PIN = Pin("commit", "a" * 64, 10)
_NONE = Standing()


def wanted(*entries: dict[str, Any]) -> tuple[Artifact, ...]:
    return artifacts(LOCAL_MODEL_NODE.read({"metadata": {"name": "n"}, "spec": {"localModels": list(entries)}}).spec)


def spec(
    *entries: dict[str, Any],
    groups: tuple[Any, ...] = (),
    pins: dict[str, Pin] | None = None,
    standing: Standing = _NONE,
) -> Meant:
    found = wanted(*entries)
    known = {each.key: PIN for each in found} if pins is None else pins
    return spec_of(found, known, Answers(), groups, standing, root=ROOT, allowed=("hf://",), job_namespace="jobs")


class TestNodeCache:
    def test_has_one_entry_for_each_artifact_that_is_known(self) -> None:
        (only,) = spec(entry("a"), entry("b", namespace="team")).artifacts.values()

        assert (only.revision, only.listing_digest, only.bytes, only.namespace) == ("commit", "a" * 64, 10, "jobs")
        assert spec(entry(), pins={}).artifacts == {}

    def test_asks_in_the_namespace_of_the_cache(self) -> None:
        assert [each.namespace for each in spec(entry(namespace="team")).artifacts.values()] == ["team"]

    def test_has_the_smallest_limit_of_the_groups_that_have_its_directory(self) -> None:
        elsewhere = group("other", path="/mnt/elsewhere")

        assert spec(entry(), groups=(group("gpu"), elsewhere)).spec.limit == str(2**40)
        assert spec(entry(), groups=(elsewhere,)).spec.limit is None

    def test_says_what_makes_no_room(self) -> None:
        entries = [entry("a"), entry("b", uri=f"{URI}2"), entry("c", uri=f"{URI}3")]
        used, unknown, unused = (each.key for each in wanted(*entries))

        found = spec(*entries, standing=Standing(frozenset({used}), frozenset({unknown}))).spec.artifacts

        assert (found[used].held, found[used].retain) == (True, None)
        assert (found[unknown].held, found[unknown].retain) == (None, "Always")  # it stays, and that is no use of it
        assert (found[unused].held, found[unused].retain) == (None, None)

    def test_survives_the_way_through_the_agents_client(self) -> None:
        made = spec(entry()).spec

        assert NODE_CACHE.read(node_document("n", "uid", 1, made)).spec == made

    @pytest.mark.parametrize(
        ("groups", "elsewhere"),
        [
            pytest.param({"gpu": group()}, False, id="its group has our directory"),
            pytest.param({"gpu": group(path="/mnt/other")}, True, id="its group has another one"),
            pytest.param({}, False, id="its group is not known"),
        ],
    )
    def test_leaves_out_what_pods_would_look_for_elsewhere(self, groups: dict[str, Any], elsewhere: bool) -> None:
        (only,) = wanted(entry())

        assert lies_elsewhere(only, groups, ROOT) is elsewhere


class TestModelCache:
    def test_means_the_artifact_and_its_credential(self) -> None:
        (only,) = wanted(entry(namespace="team", storage={"key": "hub"}))

        found = MODEL_CACHE.read(model_document(only, only.fetched_as(Answers()), "team"))

        assert found.spec.source.uri == URI
        assert found.spec.auth == Auth(secret_ref=SecretName(f"hub.{only.key}"))

    def test_means_none_without_one(self) -> None:
        (only,) = wanted(entry())

        assert MODEL_CACHE.read(model_document(only, Identity(), "jobs")).spec.auth is None


class TestCredentials:
    def test_of_an_entry_for_s3(self) -> None:
        text = json.dumps({"type": "s3", "access_key_id": "key", "secret_access_key": "secret", "bucket": "b", "region": "r"})

        found = of_entry({"store": text.encode()}, "store", {"region": "other"}, "Secret n/s")
        access = access_of("s3://b/m", Auth(secret_ref=SecretName("s")), found)

        assert isinstance(access, S3Access)
        assert (access.keys is not None, access.region) == (True, "other")

    def test_of_an_entry_for_the_hub(self) -> None:
        found = of_entry({"hub": b'{"type": "hf", "token": "t"}'}, "hub", {}, "Secret n/s")

        assert isinstance(access_of(URI, Auth(secret_ref=SecretName("s")), found), HttpAccess)

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            ({}, "Secret n/s has no key store; add it"),
            ({"store": b"hidden"}, "key store of Secret n/s is no JSON object"),
            ({"store": b"[1]"}, "key store of Secret n/s is no JSON object"),
            ({"store": b'{"type": "ftp", "password": "hidden"}'}, "is of type ftp; use one of s3, azure, hf, gcs"),
        ],
    )
    def test_an_entry_that_is_none_is_named_without_its_value(self, data: dict[str, bytes], complaint: str) -> None:
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            of_entry(data, "store", {}, "Secret n/s")
        assert "hidden" not in str(caught.value)

    def test_of_the_secret_of_a_service_account(self) -> None:
        annotations = {"serving.kserve.io/s3-endpoint": "minio.team:9000", "serving.kserve.io/s3-usehttps": "0"}

        found = of_account({"AWS_ACCESS_KEY_ID": b"k", "AWS_SECRET_ACCESS_KEY": b"s", "PATH": b"/evil"}, annotations)

        assert found == {
            "AWS_ACCESS_KEY_ID": b"k",
            "AWS_SECRET_ACCESS_KEY": b"s",
            "AWS_ENDPOINT_URL": b"http://minio.team:9000",
        }


class TestConfiguration:
    def test_says_where_claims_are(self) -> None:
        data = {"localModel": json.dumps({"enabled": True, "jobNamespace": "jobs", "disableVolumeManagement": True})}

        assert read_options({"data": data}).job_namespace == "jobs"
        assert read_options({"data": data}).disable_volume_management

    @pytest.mark.parametrize(
        "data", [None, {}, {"localModel": "no"}, {"localModel": "{}"}, {"localModel": '{"jobNamespace": 1}'}]
    )
    def test_that_cannot_be_read_is_an_error(self, data: Any) -> None:
        with pytest.raises(ValueError, match="localModel"):
            read_options({"data": data})


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"name": "kserve-localmodelnode-agent"}, True),
        ({"name": "renamed", "labels": {"control-plane": "kserve-localmodelnode-agent"}}, True),
        ({"name": "kserve-localmodelnode-agent-2"}, False),
        ({"name": "fluentd", "labels": {"control-plane": "logs"}}, False),
    ],
)
def test_kserves_agent_is_known_by_name_or_label(metadata: dict[str, Any], found: bool) -> None:
    assert agents_among([{"metadata": metadata}]) == ([metadata["name"]] if found else [])
