"""Who a registry lets in: tokens, docker's configurations, credential helpers. What must not leave: passwords and tokens."""

from __future__ import annotations

import base64
import itertools
import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fetcher.artifact import ArtifactRef, ByteRange, redact
from fetcher.errors import ConfigurationError, NotFound, Unauthorized, UsageError
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.sources.access import HttpAccess
from fetcher.sources.base import Source
from fetcher.sources.oci import OciAccess
from fetcher.sources.oci.address import OciAddress
from fetcher.sources.oci.finding import found_access
from fetcher.sources.oci.tokens import Challenge
from fetcher.testing.checkpoint import random_bytes
from fetcher.testing.conformance import listing_of, read
from fetcher.testing.content import body_of
from fetcher.testing.exchange import Request, Response
from tests.lab.command import run_fetcher
from tests.lab.front import Front, in_front_of
from tests.lab.registry import Registry, registry

SETTINGS = Settings(cache_dir=Path("/nowhere"), timeout_stall=2.0)
WEIGHTS = random_bytes("oci access", 300_000)
USER, PASSWORD = "reader", "s3cr3t-password"
TITLE = "org.opencontainers.image.title"
READER = OciAccess(USER, PASSWORD)


@dataclass
class Gate(Front):
    """A registry that wants a token of its own token server; each token is good for `uses` requests.

    With `store`, it redirects blobs there, with addresses that are good for `uses` requests too.
    """

    uses: int = 1_000
    store: str = ""
    left: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def answer(self, request: Request) -> Response:
        path, query = urlsplit(request.target).path, parse_qs(urlsplit(request.target).query)
        given = request.headers.get("authorization", "")
        if path == "/token":
            return self._token(given, query)
        if not self._spend(given.removeprefix("Bearer ")):
            challenge = f'Bearer realm="{self.endpoint}/token",service="the registry"'
            return Response(401, (("WWW-Authenticate", challenge),), body_of(b'{"errors": [{"message": "log in"}]}'))
        if self.store and "/blobs/" in path:
            return Response(307, (("Location", f"{self.store}{path}?signature={self._issue()}"),))
        return super().answer(request)

    def _token(self, given: str, query: Mapping[str, list[str]]) -> Response:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given != f"Basic {wanted}" or not query["scope"][0].endswith(":pull"):
            return Response(401)
        return Response(200, (), body_of(json.dumps({"token": self._issue()}).encode()))

    def _issue(self) -> str:
        token = f"tok3n-{next(self.numbers)}"
        self.left[token] = self.uses
        return token

    def _spend(self, token: str) -> bool:
        self.left[token] = self.left.get(token, 0) - 1
        return self.left[token] >= 0


@dataclass
class Store(Front):
    """The object store of a gate: it wants the signature in the address, and refuses any token."""

    gate: Gate | None = None

    def answer(self, request: Request) -> Response:
        signature = parse_qs(urlsplit(request.target).query).get("signature", [""])[0]
        if "authorization" in request.headers:
            return Response(400)
        assert self.gate is not None
        return super().answer(request) if self.gate._spend(signature) else Response(403)  # noqa: SLF001


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        running.push("org/model", "v1", [(WEIGHTS, "text/plain", {TITLE: "weights.bin"})])
        yield running


@pytest.fixture
def gate(server: Registry) -> Iterator[Gate]:
    gate = Gate(server.host, server.port)
    with in_front_of(server.host, server.port, gate):
        yield gate


def source_of(gate: Gate, access: OciAccess | None, environ: Mapping[str, str] | None = None, name: str = "model") -> Source:
    ref = ArtifactRef(f"oci://127.0.0.1:{gate.own_port}/org/{name}:v1")
    return open_source(ref, SETTINGS, environ or {}, credentials=access)


async def content_of(source: Source, step: int = 30_000) -> bytes:
    """The file of the artifact, read by ranges of `step` bytes one after the other."""
    async with aclosing(source):
        (file,) = (await listing_of(source)).files
        parts = [
            await read(source, file, ByteRange(start, min(start + step, len(WEIGHTS))))
            for start in range(0, len(WEIGHTS), step)
        ]
    return b"".join(parts)


class TestTokens:
    async def test_a_token_is_asked_for_with_the_password(self, gate: Gate) -> None:
        assert await content_of(source_of(gate, READER)) == WEIGHTS

    async def test_a_token_that_expires_midway_is_renewed(self, gate: Gate) -> None:
        gate.uses = 2
        assert await content_of(source_of(gate, READER)) == WEIGHTS
        assert len([each for each in gate.requests if each.target.startswith("/token")]) > 3

    async def test_the_token_does_not_follow_to_the_store_and_expired_addresses_are_renewed(
        self, gate: Gate, server: Registry
    ) -> None:
        store = Store(server.host, server.port, gate=gate)
        with in_front_of(server.host, server.port, store):
            gate.store, gate.uses = store.endpoint, 3
            assert await content_of(source_of(gate, READER)) == WEIGHTS
        assert store.requests
        assert not [each for each in store.requests if "authorization" in each.headers]

    @pytest.mark.parametrize("access", [OciAccess(), OciAccess(USER, "wr0ng"), OciAccess(identity_token="t0ken")])
    async def test_a_refusal_says_which_credentials_were_sent(self, gate: Gate, access: OciAccess) -> None:
        with pytest.raises(Unauthorized) as caught:
            await content_of(source_of(gate, access))
        assert ("no credentials were sent" if access.anonymous else "from the caller") in caught.value.message
        assert not [secret for secret in ("wr0ng", "t0ken", PASSWORD) if secret in caught.value.message]

    async def test_an_unknown_repository_is_not_found(self, gate: Gate) -> None:
        with pytest.raises(NotFound, match="check repository, tag and digest"):
            await content_of(source_of(gate, READER, name="nothing"))

    def test_no_representation_shows_a_secret(self) -> None:
        assert PASSWORD not in repr(READER)
        assert "t0ken" not in repr(OciAccess(identity_token="t0ken"))

    @pytest.mark.parametrize(
        ("header", "scheme", "parameters"),
        [
            ('Bearer realm="https://t/x?y=1,2",service="s"', "bearer", {"realm": "https://t/x?y=1,2", "service": "s"}),
            ("bearer realm=https://t/x, scope=s", "bearer", {"realm": "https://t/x", "scope": "s"}),
            ('Basic realm="r"', "basic", {"realm": "r"}),
            ("", "", {}),
        ],
    )
    def test_challenges_are_read(self, header: str, scheme: str, parameters: dict[str, str]) -> None:
        assert Challenge.parse(header) == Challenge(scheme, parameters)


class TestCredentials:
    async def test_two_tenants_of_one_process_use_their_own(self, gate: Gate, tmp_path: Path) -> None:
        """The environment holds a password that would be accepted, and credentials are given: it is not used."""
        environ = {"DOCKER_CONFIG": str(tmp_path)}
        write(tmp_path / "config.json", {"auths": {f"127.0.0.1:{gate.own_port}": {"username": USER, "password": PASSWORD}}})
        assert await content_of(source_of(gate, None, environ)) == WEIGHTS
        for others in (OciAccess(), OciAccess(USER, "theirs")):
            with pytest.raises(Unauthorized):
                await content_of(source_of(gate, others, environ))

    def test_another_kind_is_refused(self, gate: Gate) -> None:
        with pytest.raises(UsageError, match="OciAccess, not HttpAccess"):
            open_source(ArtifactRef("oci://host/model"), SETTINGS, {}, credentials=HttpAccess())

    @pytest.mark.parametrize(
        "variable", ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "KSERVE_OCI_DOCKER_CONFIG", "XDG_RUNTIME_DIR", "HOME"]
    )
    def test_a_configuration_is_found_by_its_variable(self, variable: str, tmp_path: Path) -> None:
        places = {
            "REGISTRY_AUTH_FILE": "auth.json", "XDG_RUNTIME_DIR": "containers/auth.json", "HOME": ".docker/config.json",
        }  # fmt: skip
        path = tmp_path / places.get(variable, "config.json")
        path.parent.mkdir(exist_ok=True)
        write(path, {"auths": {"host": {"auth": base64.b64encode(b"user:pa:ss").decode()}}})
        value = str(path if variable == "REGISTRY_AUTH_FILE" else tmp_path)
        found = found_access({variable: value}, "host", "org/model")
        assert (found.user, found.password, found.given_by) == ("user", "pa:ss", str(path))

    @pytest.mark.parametrize(
        ("registry", "entry"),
        [
            ("host", "host"), ("host", "https://host"), ("host", "https://host/v1/"), ("host", "host/org"),
            ("host", "host/org/model"), ("docker.io", "https://index.docker.io/v1/"), ("host:5000", "host:5000"),
        ],
    )  # fmt: skip
    def test_entries_have_several_spellings(self, registry: str, entry: str, tmp_path: Path) -> None:
        write(tmp_path / "config.json", {"auths": {entry: {"username": "user", "password": "p"}, "other": {"auth": "bm8="}}})
        assert found_access({"DOCKER_CONFIG": str(tmp_path)}, registry, "org/model").user == "user"
        assert found_access({"DOCKER_CONFIG": str(tmp_path)}, "elsewhere", "org/model").anonymous

    @pytest.mark.parametrize("how", ["credHelpers", "credsStore"])
    def test_a_credential_helper_is_asked(self, how: str, tmp_path: Path) -> None:
        helper = '#!/bin/sh\n[ "$1" = get ] && read -r name; echo "{\\"Username\\": \\"$name\\", \\"Secret\\": \\"p\\"}"\n'
        program(tmp_path / "docker-credential-test", helper)
        write(tmp_path / "config.json", {how: {"host": "test"} if how == "credHelpers" else "test"})
        found = found_access({"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/bin:/usr/bin"}, "host", "m")
        assert (found.user, found.password, found.given_by) == ("host", "p", "docker-credential-test")

    def test_a_helper_without_an_entry_means_anonymous(self, tmp_path: Path) -> None:
        program(tmp_path / "docker-credential-test", "#!/bin/sh\necho credentials not found in native keychain; exit 1\n")
        write(tmp_path / "config.json", {"credsStore": "test"})
        assert found_access({"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/bin"}, "host", "m").anonymous

    @pytest.mark.parametrize(
        ("helper", "says"),
        [("echo hello", "wrote no user"), ("echo s3cr3t; exit 3", "failed with status 3"), ("", "wrote no user")],
    )
    def test_a_broken_helper_is_named_without_its_output(self, helper: str, says: str, tmp_path: Path) -> None:
        program(tmp_path / "docker-credential-test", f"#!/bin/sh\n{helper}\n")
        write(tmp_path / "config.json", {"credsStore": "test"})
        with pytest.raises(ConfigurationError, match=says) as caught:
            found_access({"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/bin"}, "host", "m")
        assert "s3cr3t" not in str(caught.value)

    @pytest.mark.parametrize(
        "text", ["nonsense", "[]", '{"auths": {"host": {"auth": "%%%"}}}', '{"credsStore": "../../bin/sh"}']
    )
    def test_a_broken_configuration_is_an_error(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigurationError):
            found_access({"DOCKER_CONFIG": str(tmp_path)}, "host", "m")


class TestAddresses:
    @pytest.mark.parametrize(
        ("uri", "revision", "reference"),
        [
            ("oci://host/a", None, "latest"), ("oci://host:5000/a/b:v1.0", None, "v1.0"), ("OCI+FETCH://host/a:b", None, "b"),
            (f"oci://host/a@sha256:{'0' * 64}", None, f"sha256:{'0' * 64}"), ("oci://host/a", "v2", "v2"),
            (f"oci://host/a:v1@sha256:{'0' * 64}", None, f"sha256:{'0' * 64}"), ("oci://[::1]:5000/a", None, "latest"),
        ],
    )  # fmt: skip
    def test_tags_and_digests(self, uri: str, revision: str | None, reference: str) -> None:
        assert OciAddress.parse(uri, revision).reference == reference

    @pytest.mark.parametrize(
        ("uri", "revision"),
        [
            ("oci://host", None), ("oci://host/", None), ("oci://host/Model", None), ("oci://host/a/../b", None),
            ("oci://user:s3cr3t@host/a", None), ("oci://host/a@sha256:12", None), ("oci://host/a:v1", "v2"),
            ("oci://host/a?x=1", None), ("oci://n/space/b/bucket/o/model", None), ("oci://host/a", "../v1"),
        ],
    )  # fmt: skip
    def test_bad_addresses_are_refused(self, uri: str, revision: str | None) -> None:
        with pytest.raises(UsageError) as caught:
            OciAddress.parse(uri, revision)
        assert "s3cr3t" not in caught.value.message

    @pytest.mark.parametrize(
        ("uri", "endpoint"),
        [
            ("oci://registry.example/a", "https://registry.example"), ("oci://localhost:5000/a", "http://localhost:5000"),
            ("oci://127.0.0.9:5000/a", "http://127.0.0.9:5000"), ("oci://[::1]:5000/a", "http://[::1]:5000"),
            ("oci://plain:5000/a", "http://plain:5000"), ("oci://plain/a", "https://plain"),
            ("oci://docker.io/ai/smollm2", "https://registry-1.docker.io"),
        ],
    )  # fmt: skip
    def test_only_loopback_and_named_registries_lack_tls(self, uri: str, endpoint: str) -> None:
        assert OciAddress.parse(uri, None).endpoint({"FETCHER_PLAIN_HTTP_REGISTRIES": "plain:5000, other"}) == endpoint

    def test_a_password_in_an_address_is_not_shown(self, tmp_path: Path) -> None:
        assert redact("oci://user:s3cr3t@host/a:v1") == "oci:..."
        done = run_fetcher("fetch", "oci://user:s3cr3t@host/a:v1", "--cache-dir", tmp_path, "--progress", "log")
        assert (done.returncode, "s3cr3t" in done.stdout + done.stderr) == (64, False)


def write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
