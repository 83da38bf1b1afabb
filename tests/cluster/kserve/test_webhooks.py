"""KServe's contract at admission on a real API server, which asks our server over TLS before it stores anything."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from cluster.client import Api, ApiError, Endpoint, of_kubeconfig
from cluster.kserve.beside_controller import managing
from cluster.kserve.observing import SERVICES
from cluster.kserve.reviewing import answered, verdict
from cluster.kserve.webhooks import Webhooks
from cluster.kserve.world import Options, World
from fetcher.certificates import CertificateFiles
from fetcher.errors import ConfigurationError
from fetcher.events import Event, Noted
from tests.cluster.api import Cluster
from tests.cluster.kserve.conftest import Place
from tests.cluster.kserve.test_managing import CACHES, NAMESPACED, make, make_group
from tests.cluster.kserve.worlds import URI, cache, service
from tests.k8s.manifests.rendering import K8S

_VALIDATING = Endpoint(
    "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", namespaced=False
)
_MUTATING = Endpoint(
    "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", namespaced=False
)
_MANIFEST = K8S / "integrations" / "kserve" / "webhooks" / "configurations.yaml"
Document = dict[str, Any]


def written(authority: trustme.CA, directory: Path) -> CertificateFiles:
    """A new certificate of `authority`, where the server reads it."""
    made = authority.issue_cert("127.0.0.1")
    directory.mkdir(exist_ok=True)
    files = CertificateFiles(directory / "tls.crt", directory / "tls.key")
    for path, content in ((files.key, made.private_key_pem.bytes()), (files.chain, made.cert_chain_pems[0].bytes())):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(path)
    return files


@asynccontextmanager
async def asked(plane: Cluster, api: Api, place: Place, directory: Path) -> AsyncIterator[None]:
    """Our manager at work, and the API server told to ask it about the caches and services of this test."""
    authority = trustme.CA()
    written(authority, directory)
    said: list[str] = []

    def heard(event: Event) -> None:
        if isinstance(event, Noted) and event.subject == "webhooks":
            said.append(event.message.partition("asked at ")[2])

    options = {
        "kserve_namespace": place.kserve,
        "image": "example.com/weightlift:0.1.0",
        "webhook_certificates": directory,
        "webhook_port": 0,
        "webhook_address": "127.0.0.1",
    }
    api_of = partial(Api, of_kubeconfig(Path(plane.kubeconfig)), manager="weightlift-test")
    task = asyncio.ensure_future(managing(api_of, options, heard, identity="ours"))
    made = []
    try:
        await until("the server listens", lambda: bool(said) or task.done())
        if task.done():
            task.result()
        for document in yaml.safe_load_all(_MANIFEST.read_text()):
            endpoint = _VALIDATING if document["kind"] == _VALIDATING.kind else _MUTATING
            made.append((endpoint, await api.create(endpoint, pointed(document, place, said[0], authority))))
        yield
    finally:
        for endpoint, document in made:
            await api.delete(endpoint, document["metadata"]["name"], uid=document["metadata"]["uid"])
        task.cancel()
        await asyncio.wait([task])


def pointed(document: Document, place: Place, where: str, authority: trustme.CA) -> Document:
    """The configuration of the manifest, for our server, and for objects that have the test's label. It must answer here."""
    trusted = base64.b64encode(authority.cert_pem.bytes()).decode()
    webhooks = [
        {
            **each,
            "clientConfig": {"url": where, "caBundle": trusted},
            "failurePolicy": "Fail",
            "objectSelector": {"matchLabels": {"test": place.mark}},
        }
        for each in document["webhooks"]
    ]
    return {**document, "metadata": {"name": place.mark}, "webhooks": webhooks}


async def until(what: str, true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"expected: {what}")


async def answer(act: Callable[[], Awaitable[Any]], *, patient: Callable[[str], bool]) -> str:
    """Return what the API server says to `act`, empty if it does it. A watch may be behind: as long as the answer is one to be
    `patient` with, it is asked again."""
    said = ""
    for _ in range(300):
        said = ""
        try:
            await act()
        except ApiError as error:
            said = str(error)
        if not patient(said):
            return said
        await asyncio.sleep(0.1)
    raise AssertionError(f"the API server still says {said!r}")


def unknown(said: str) -> bool:
    """Whether our server does not know the cluster yet."""
    return "failed calling webhook" in said


async def labelled_cache(api: Api, place: Place, group: str, name: str, namespace: str = "") -> None:
    """Make a cache of the URI of this test, or try to."""
    spec = {"sourceModelUri": f"{URI}-{place.mark}", "modelSize": "1Gi", "nodeGroups": [group]}
    endpoint = NAMESPACED if namespace else CACHES
    metadata = {"name": f"{place.mark}-{name}", "namespace": namespace, "labels": {"test": place.mark}}
    document = {"apiVersion": endpoint.api_version, "kind": endpoint.kind, "metadata": metadata, "spec": spec}
    await api.create(endpoint, document)


async def second_cache(api: Api, place: Place, group: str) -> None:
    """Try to make another cache of the URI; if that is admitted because the watch is behind, it goes again."""
    await labelled_cache(api, place, group, "n")
    made = await api.get(CACHES, f"{place.mark}-n")
    await api.merge(CACHES, f"{place.mark}-n", "", {"metadata": {"finalizers": None}})
    await api.delete(CACHES, f"{place.mark}-n", uid=made["metadata"]["uid"])


async def test_rows_16_17_33_and_34_from_a_service_to_the_end_of_its_cache(
    plane: Cluster, api: Api, place: Place, tmp_path: Path
) -> None:
    group = await make_group(api, place)
    async with asked(plane, api, place, tmp_path / "certificates"):
        model = f"{place.mark}-m"
        assert await answer(lambda: labelled_cache(api, place, group, "m"), patient=unknown) == ""

        # Row 17: a second cache of the URI, but not one of a namespace.
        said = await answer(lambda: second_cache(api, place, group), patient=lambda said: not said)
        assert f"LocalModelCache {model} already has {URI}-{place.mark}; use that one" in said
        await labelled_cache(api, place, group, "near", place.jobs)

        # Rows 33 and 34: a service that wants it is marked.
        wanted = {"predictor": {"model": {"storageUri": f"{URI}-{place.mark}/below"}}}

        async def served() -> Document:
            await api.merge(SERVICES, f"{place.mark}-s", place.team, {"metadata": {"annotations": {"again": "yes"}}})
            return await api.get(SERVICES, f"{place.mark}-s", place.team)

        labels = {"labels": {"test": place.mark}}
        found = await make(api, SERVICES, f"{place.mark}-s", place.team, metadata=labels, spec=wanted)
        for _ in range(100):  # the watch may have shown the cache to the other webhook only
            if "internal.serving.kserve.io/localmodel" in found["metadata"]["labels"]:
                break
            found = await served()
        assert found["metadata"]["labels"]["internal.serving.kserve.io/localmodel"] == model
        assert found["metadata"]["annotations"]["internal.serving.kserve.io/localmodel-pvc-name"] == f"{model}-{group}"
        assert found["metadata"]["annotations"]["internal.serving.kserve.io/localmodel-sourceuri"] == f"{URI}-{place.mark}"

        # Row 16: the cache stays while the service has the label.
        said = await answer(lambda: tried(plane, model), patient=lambda said: not said)
        assert f"LocalModelCache {model} is used by InferenceService {place.team}/{place.mark}-s" in said
        await api.delete(SERVICES, found["metadata"]["name"], place.team, uid=found["metadata"]["uid"])
        uid = (await api.get(CACHES, model))["metadata"]["uid"]
        assert await answer(lambda: api.delete(CACHES, model, uid=uid), patient=lambda said: "is used by" in said) == ""


async def tried(plane: Cluster, name: str) -> None:
    """Try to delete a cache, which is not deleted also if it may be: the watch can be behind."""
    done = await asyncio.to_thread(plane.run, "delete", "localmodelcaches.serving.kserve.io", name, "--dry-run=server")
    if done.returncode:
        raise ApiError(done.stderr)


class TestServer:
    """Over TLS, without an API server."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    async def test_a_renewed_certificate_is_used_for_the_next_connection(self, authority: trustme.CA, tmp_path: Path) -> None:
        async with running(written(authority, tmp_path), lambda: WORLD) as where:
            before = await asyncio.to_thread(serial, where)
            assert await asyncio.to_thread(serial, where) == before
            written(authority, tmp_path)
            assert await asyncio.to_thread(serial, where) != before

    async def test_a_certificate_that_cannot_be_used_leaves_the_former_one_and_is_told(
        self, authority: trustme.CA, tmp_path: Path
    ) -> None:
        told: list[str] = []
        async with running(written(authority, tmp_path), lambda: WORLD, told.append) as where:
            before = await asyncio.to_thread(serial, where)
            (tmp_path / "tls.crt").write_text("no certificate")
            assert await asyncio.to_thread(serial, where) == before
        assert len(told) == 1
        assert "the former certificate is used" in told[0]

    def test_without_a_certificate_it_does_not_begin(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"tls\.crt"):
            Webhooks(CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key"), lambda: None, print)

    async def test_what_is_asked_before_the_cluster_is_known_has_no_answer(self, authority: trustme.CA, tmp_path: Path) -> None:
        async with running(written(authority, tmp_path), lambda: None) as where:
            assert await asyncio.to_thread(posted, where, authority, json.dumps(review("CREATE")).encode()) == 503

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", 400),
            (b"[]", 400),
            (b'{"kind": "AdmissionReview", "apiVersion": "v1", "request": {}}', 400),
            (b"[" * 100_000, 400),
            (b" " * (9 * 1024 * 1024), 413),
        ],
        ids=["nothing", "a list", "no uid", "depth", "size"],
    )
    async def test_what_is_no_review_is_refused(self, authority: trustme.CA, tmp_path: Path, body: bytes, code: int) -> None:
        async with running(written(authority, tmp_path), lambda: WORLD) as where:
            assert await asyncio.to_thread(posted, where, authority, body) == code
            assert await asyncio.to_thread(posted, where, authority, json.dumps(review("CREATE")).encode()) == 200


WORLD = World(Options("jobs"), caches={("", "old"): cache("old")}, services=(service("s", "team", uses="old"),))


@asynccontextmanager
async def running(
    files: CertificateFiles, world: Callable[[], World | None], warn: Callable[[str], None] = print
) -> AsyncIterator[str]:
    where: list[str] = []
    task = asyncio.ensure_future(Webhooks(files, world, warn).serve("127.0.0.1", 0, where.append))
    try:
        await until("it listens", lambda: bool(where))
        yield where[0]
    finally:
        task.cancel()
        await asyncio.wait([task])


def serial(where: str) -> str:
    """The serial number of the certificate that a new connection is shown."""
    host, _, port = where.removeprefix("https://").partition("/")[0].rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10)


def posted(where: str, authority: trustme.CA, body: bytes) -> int:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    request = urllib.request.Request(where, data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def review(operation: str, *, kind: str = "LocalModelCache", **request: Any) -> Document:
    given = {"metadata": {"name": "new"}, "spec": {"sourceModelUri": URI, "modelSize": "1Gi", "nodeGroups": ["gpu"]}}
    asked_for = {"uid": "u", "kind": {"kind": kind}, "operation": operation, "name": "new", "object": given, **request}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked_for}


class TestVerdicts:
    """What is asked, and what is answered."""

    def answer(self, asked_for: Document) -> Document:
        return dict(answered(asked_for, verdict(asked_for["request"], WORLD))["response"])

    def test_a_denial_has_a_sentence(self) -> None:
        response = self.answer(review("CREATE"))
        assert (response["uid"], response["allowed"]) == ("u", False)
        assert response["status"]["message"] == f"LocalModelCache old already has {URI}; use that one"

    def test_a_deletion_is_judged_by_the_object_that_was(self) -> None:
        was = {**review("DELETE")["request"]["object"], "metadata": {"name": "old"}}
        response = self.answer(review("DELETE", object=None, oldObject=was, name="old"))
        assert "is used by InferenceService team/s" in response["status"]["message"]

    def test_a_service_that_has_no_name_yet_is_marked_in_its_namespace(self) -> None:
        given = {"metadata": {"generateName": "s-"}, "spec": {"predictor": {"model": {"storageUri": URI}}}}
        response = self.answer(review("CREATE", kind="InferenceService", namespace="team", name="", object=given))
        patch = json.loads(base64.b64decode(response["patch"]))
        assert response["patchType"] == "JSONPatch"
        assert patch[0]["value"] == {"internal.serving.kserve.io/localmodel": "old"}

    @pytest.mark.parametrize(
        "asked_for",
        [
            review("CONNECT"),
            review("CREATE", kind="Pod"),
            review("CREATE", kind=None),  # type: ignore[arg-type]
        ],
        ids=["another operation", "another kind", "no kind"],
    )
    def test_what_is_not_asked_for_is_admitted(self, asked_for: Document) -> None:
        assert self.answer(asked_for) == {"uid": "u", "allowed": True}

    @pytest.mark.parametrize(
        "given",
        [None, 1, {}, {"metadata": None}, {"metadata": {"name": "n"}, "spec": {"sourceModelUri": 1}}],
        ids=["nothing", "a number", "an empty one", "no metadata", "another type"],
    )
    @pytest.mark.parametrize("kind", ["LocalModelCache", "InferenceService"])
    def test_what_cannot_be_read_is_admitted(self, kind: str, given: Any) -> None:
        response = self.answer(review("CREATE", kind=kind, object=given))
        assert response["allowed"]
        assert "patch" not in response

    def test_a_service_whose_adapters_cannot_be_read_is_admitted_with_a_warning(self) -> None:
        annotations = {"internal.serving.kserve.io/localmodel-lora": "{"}
        given = {"metadata": {"name": "s", "annotations": annotations}, "spec": {}}
        response = self.answer(review("CREATE", kind="InferenceService", namespace="team", object=given))
        assert response["allowed"]
        assert "cannot read this InferenceService" in response["warnings"][0]
