"""The environment on users' machines, tested end to end: ~/.netrc, proxies, mirrors with a password, tokens in quotes."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fetcher.artifact import ArtifactRef
from fetcher.errors import ConfigurationError, FetchError
from fetcher.settings import Settings
from fetcher.sources import open_source
from fetcher.testing.conformance import listing_of, read
from fetcher.testing.effects import Body, Header, Redirect
from fetcher.testing.faults import Fault
from fetcher.testing.listings import NextLink
from fetcher.testing.origin import Origin
from tests.lab.proxy import running_proxy

FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}
URI = "hf://org/model"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(tokens=["hf_known"], lfs_threshold=1000, cdn_host="localhost") as running:
        running.add_repo("org/model", FILES)
        yield running


async def fetched(uri: str, environ: dict[str, str]) -> dict[str, bytes]:
    source = open_source(ArtifactRef(uri), Settings(cache_dir=Path("/nowhere"), timeout_stall=5.0), environ)
    try:
        return {file.path: await read(source, file) for file in (await listing_of(source)).files}
    finally:
        await source.aclose()


def sent(origin: Origin) -> set[tuple[str, str | None]]:
    return {(request.origin, request.headers.get("authorization")) for request in origin.requests}


class TestNetrc:
    @pytest.fixture(params=["default login u password s3cret", "machine 127.0.0.1 login u password s3cret", "not a netrc {"])
    def netrc(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / ".netrc").write_text(f"{request.param}\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))

    @pytest.fixture(params=[True, False], ids=["NETRC", "in the home"])
    def variable(self, request: pytest.FixtureRequest, netrc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param:
            monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    @pytest.mark.parametrize("token", [None, "hf_known"])
    async def test_passwords_in_netrc_are_never_sent_to_the_hub(
        self, origin: Origin, variable: None, token: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        assert await fetched(URI, {"HF_ENDPOINT": origin.endpoint}) == FILES
        assert sent(origin) == {("hub", f"Bearer {token}" if token else None), ("cdn", None)}

    async def test_passwords_in_netrc_are_never_sent_to_a_web_address(self, origin: Origin, variable: None) -> None:
        address = origin.add_file("/f.bin", b"bytes")
        assert await fetched(address, {}) == {"f.bin": b"bytes"}
        assert sent(origin) == {("cdn", None)}


class TestMirrorWithAPassword:
    async def test_a_mirror_gets_its_own_password_and_not_the_token(
        self, origin: Origin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_known")
        endpoint = origin.endpoint.replace("://", "://us%40er:p%2Fw@")
        assert await fetched(URI, {"HF_ENDPOINT": endpoint}) == FILES
        basic = "Basic " + base64.b64encode(b"us@er:p/w").decode()
        assert sent(origin) == {("hub", basic), ("cdn", None)}

    async def test_no_error_shows_a_mirrors_password(self, origin: Origin) -> None:
        endpoint = origin.endpoint.replace("://", "://user:s3cret@")
        with pytest.raises(FetchError) as caught:
            await fetched("hf://org/absent", {"HF_ENDPOINT": endpoint})
        assert "s3cret" not in caught.value.sentence()


class TestTokens:
    @pytest.mark.parametrize(
        "text", ['"hf_known"', "'hf_known'", "hf_known\n", "Bearer hf_known", '"bearer hf_known"', "' hf_known '"]
    )
    async def test_quotes_and_bearer_around_a_token_are_removed(
        self, origin: Origin, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", text)
        await fetched(URI, {"HF_ENDPOINT": origin.endpoint})
        assert {request.token for request in origin.requests if request.origin == "hub"} == {"hf_known"}

    @pytest.mark.parametrize("text", ["", " ", '""', "Bearer "])
    async def test_an_empty_token_is_not_sent(self, origin: Origin, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", text)
        assert await fetched(URI, {"HF_ENDPOINT": origin.endpoint}) == FILES
        assert sent(origin) == {("hub", None), ("cdn", None)}

    @pytest.mark.parametrize("text", ["hf_a\nhf_b", "hf a", "hf_ä", 'hf_"x', "'hf_x"])
    async def test_an_invalid_token_is_reported_and_not_shown(
        self, origin: Origin, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", text)
        with pytest.raises(ConfigurationError, match="characters that no token has") as caught:
            await fetched(URI, {"HF_ENDPOINT": origin.endpoint})
        assert text not in caught.value.sentence()
        assert not origin.requests


class TestProxies:
    @pytest.fixture
    def secure(self) -> Iterator[Origin]:
        with Origin(lfs_threshold=1000, tls=("hub", "cdn"), cdn_host="localhost") as running:
            running.add_repo("org/model", FILES)
            yield running

    @pytest.mark.parametrize(
        ("exceptions", "through"),
        [
            ("", {"hub", "cdn"}),
            ("127.0.0.0/8", {"cdn"}),
            ("localhost", {"hub"}),
            (" .localhost , 127.0.0.1", set()),
            ("*", set()),
        ],
    )
    async def test_no_proxy_is_applied_to_each_redirect(self, secure: Origin, exceptions: str, through: set[str]) -> None:
        with running_proxy() as proxy:
            environ = {
                "HF_ENDPOINT": secure.endpoint,
                "SSL_CERT_FILE": str(secure.ca_file),
                "https_proxy": proxy.url.removeprefix("http://"),
                "no_proxy": exceptions,
            }
            assert await fetched(URI, environ) == FILES
            places = {"hub": secure.endpoint, "cdn": secure.cdn_endpoint}
            assert set(proxy.tunnels) == {places[name].removeprefix("https://") for name in through}

    async def test_a_socks_proxy_is_refused_before_any_request(self, origin: Origin) -> None:
        with pytest.raises(ConfigurationError, match="ALL_PROXY names a proxy that speaks socks5://"):
            await fetched(URI, {"HF_ENDPOINT": origin.endpoint, "ALL_PROXY": "socks5://127.0.0.1:9"})

    async def test_a_tunnels_password_is_sent_only_to_the_proxy(self, secure: Origin) -> None:
        with running_proxy() as proxy:
            environ = {
                "HF_ENDPOINT": secure.endpoint,
                "SSL_CERT_FILE": str(secure.ca_file),
                "HTTPS_PROXY": proxy.url.replace("://", "://us%40er:p%2Fw@"),
            }
            assert await fetched(URI, environ) == FILES
        assert set(proxy.passwords) == {"Basic " + base64.b64encode(b"us@er:p/w").decode()}
        assert not [request for request in secure.requests if "proxy-authorization" in request.headers]

    async def test_a_plain_http_request_sends_the_whole_address_to_the_proxy(self, origin: Origin) -> None:
        origin.add_file("/f.bin", b"bytes")  # the origin acts as the proxy
        proxy = origin.cdn_endpoint.replace("://", "://user:pw@")
        assert await fetched("http://elsewhere.invalid/f.bin", {"http_proxy": proxy}) == {"f.bin": b"bytes"}
        (request,) = origin.requests
        assert request.target == "http://elsewhere.invalid/f.bin"
        assert request.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:pw").decode()

    async def test_no_error_shows_a_proxys_password(self, origin: Origin) -> None:
        with pytest.raises(FetchError) as caught:
            await fetched("http://elsewhere.invalid/f.bin", {"http_proxy": "http://user:s3cret@127.0.0.1:9"})
        assert "s3cret" not in caught.value.sentence()
        assert "proxy" in caught.value.message


class TestMirrors:
    """The origin acts as a mirror whose answers contain addresses of its upstream."""

    async def test_a_next_page_at_the_upstream_is_requested_from_the_mirror(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_known")
        with Origin(tokens=["hf_known"], page_size=1) as mirror:
            repository = mirror.add_repo("org/model", FILES)
            address = f"https://huggingface.co/api/models/org/model/tree/{repository.commit}?recursive=true&cursor=1"
            mirror.faults.add(Fault(NextLink(address), path="/tree/", times=1))
            assert await fetched(URI, {"HF_ENDPOINT": mirror.endpoint}) == FILES
            assert {request.token for request in mirror.requests if request.origin == "hub"} == {"hf_known"}

    @pytest.mark.parametrize("host", ["https://huggingface.co", "HTTP://HuggingFace.co", ""])
    async def test_a_renamed_repository_is_followed_at_the_mirror(self, origin: Origin, host: str) -> None:
        origin.faults.add(Fault(Redirect(f"{host}/api/models/org/model/revision/main", 307), path="org/old/revision"))
        commit = origin.add_repo("org/old", FILES).commit
        assert await fetched("hf://org/old", {"HF_ENDPOINT": origin.endpoint}) == FILES
        assert commit in "".join(request.path for request in origin.requests)


class TestAnswers:
    async def test_metadata_may_be_compressed(self, origin: Origin) -> None:
        commit = {"sha": origin.add_repo("org/model", FILES).commit}
        origin.faults.add(Fault(Body(gzip.compress(json.dumps(commit).encode())), path="/revision/"))
        origin.faults.add(Fault(Header("Content-Encoding", "gzip"), path="/revision/"))
        assert await fetched(URI, {"HF_ENDPOINT": origin.endpoint}) == FILES

    async def test_an_address_may_contain_spaces_and_accents(self, origin: Origin) -> None:
        address = origin.add_file("/mod èle [1]|50%.bin", b"bytes")
        raw = address.partition("/mod")[0] + "/mod èle [1]|50%.bin"
        assert await fetched(raw, {}) == {"mod èle [1]|50%.bin": b"bytes"}

    async def test_a_location_may_contain_spaces(self, origin: Origin) -> None:
        origin.add_file("/a b.bin", b"bytes")
        origin.add_file("/f.bin", b"other")
        origin.faults.add(Fault(Redirect("/a b.bin"), path="/f.bin"))
        assert await fetched(f"{origin.cdn_endpoint}/f.bin", {}) == {"f.bin": b"bytes"}

    @pytest.mark.parametrize(("host", "why"), [("a" * 64 + ".example", "not a host name"), ("a..example", "not a host name")])
    async def test_an_invalid_host_name_is_reported(self, host: str, why: str) -> None:
        with pytest.raises(FetchError) as caught:
            await fetched(f"http://{host}/f.bin", {})
        assert why in caught.value.message
