"""The credential of a ModelCache: which keys of a Secret are read, and that nothing else ever is."""

from __future__ import annotations

import base64
import json

import pytest

from cluster.credentials import access_of
from cluster.resources.model import Auth, SecretKey, SecretName
from cluster.secrets import permission
from fetcher.errors import ConfigurationError, FetchError, SourceNotAllowed, UsageError
from fetcher.sources.access import Access, HttpAccess
from fetcher.sources.azure.access import AzureAccess
from fetcher.sources.gcs.access import GcsAccess
from fetcher.sources.oci.access import OciAccess
from fetcher.sources.s3.access import S3Access, S3Keys

SECRET = "s3cret-value"
TOKEN = Auth(secret_key_ref=SecretKey("hub", "HF_TOKEN"))
WHOLE = Auth(secret_ref=SecretName("store"))
DOCKER = json.dumps({"auths": {"reg.example.com": {"auth": base64.b64encode(f"me:{SECRET}".encode()).decode()}}}).encode()


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("hf://org/m", HttpAccess),
        ("https://h.test/m", HttpAccess),
        ("s3://b/m", S3Access),
        ("gs://b/m", GcsAccess),
        ("az://container/m", AzureAccess),
        ("https://account.blob.core.windows.net/c/m", AzureAccess),
        ("oci://reg.example.com/m:1", OciAccess),
    ],
)
def test_without_auth_a_source_is_asked_anonymously(uri: str, kind: type[Access]) -> None:
    assert access_of(uri, None, {"HF_TOKEN": b"x"}) == kind()


def test_a_token_is_sent_to_a_hub_or_a_web_server() -> None:
    for uri in ("hf://org/m", "https://h.test/m"):
        access = access_of(uri, TOKEN, {"HF_TOKEN": f"{SECRET}\n".encode()})
        assert isinstance(access, HttpAccess)
        assert access.headers == {"Authorization": f"Bearer {SECRET}"}
        assert access.given_by == "key HF_TOKEN of Secret hub"


@pytest.mark.parametrize("uri", ["s3://b/m", "gs://b/m", "az://c/m", "oci://reg.example.com/m:1"])
def test_a_token_alone_is_no_credential_of_a_store(uri: str) -> None:
    with pytest.raises(UsageError, match="use secretRef with the keys"):
        access_of(uri, TOKEN, {"HF_TOKEN": SECRET.encode()})


def test_keys_of_a_store_become_values() -> None:
    s3 = access_of(
        "s3://b/m", WHOLE, {"AWS_ACCESS_KEY_ID": b"id", "AWS_SECRET_ACCESS_KEY": SECRET.encode(), "AWS_REGION": b"eu"}
    )
    assert s3 == S3Access(S3Keys("id", SECRET), region="eu", given_by="Secret store")
    azure = access_of("az://c/m", WHOLE, {"AZURE_STORAGE_ACCOUNT": b"a", "AZURE_STORAGE_KEY": base64.b64encode(b"k")})
    assert azure == AzureAccess("a", key=base64.b64encode(b"k").decode(), given_by="Secret store")
    registry = access_of("oci://reg.example.com/m:1", WHOLE, {".dockerconfigjson": DOCKER})
    assert registry == OciAccess("me", SECRET, given_by="Secret store")


REFUSED = [
    ("a Secret without the key", "hf://org/m", TOKEN, {}, "no key HF_TOKEN"),
    ("bytes that are no text", "hf://org/m", TOKEN, {"HF_TOKEN": b"\xff" + SECRET.encode()}, "not a text"),
    ("a value as large as a file", "hf://org/m", TOKEN, {"HF_TOKEN": SECRET.encode() * 9000}, "not a text"),
    ("a token of several lines", "hf://org/m", TOKEN, {"HF_TOKEN": b"a\nb" + SECRET.encode()}, "no token has"),
    ("a Secret of another store", "s3://b/m", WHOLE, {"HF_TOKEN": SECRET.encode()}, "none of the keys AWS_ACCESS_KEY_ID"),
    ("half a pair of keys", "s3://b/m", WHOLE, {"AWS_SECRET_ACCESS_KEY": SECRET.encode()}, "needs both"),
    ("a client without its secret", "az://c/m", WHOLE, {"AZURE_CLIENT_ID": SECRET.encode()}, "a client needs"),
    ("a registry without an entry", "oci://other.test/m:1", WHOLE, {".dockerconfigjson": DOCKER}, "no entry for other.test"),
    (
        "a credential helper, which is a program",
        "oci://reg.example.com/m:1",
        WHOLE,
        {".dockerconfigjson": json.dumps({"credsStore": SECRET}).encode()},
        "no entry for",
    ),
    (
        "Google credentials that name a program",
        "gs://b/m",
        WHOLE,
        {"GOOGLE_APPLICATION_CREDENTIALS_JSON": json.dumps({"type": "external_account", "x": SECRET}).encode()},
        "another type",
    ),
]


@pytest.mark.parametrize(("uri", "auth", "data", "sentence"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_what_cannot_be_used_is_refused_without_showing_it(uri: str, auth: Auth, data: dict[str, bytes], sentence: str) -> None:
    with pytest.raises(FetchError) as caught:
        access_of(uri, auth, data)
    assert isinstance(caught.value, UsageError | ConfigurationError)
    assert sentence in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_lines_that_let_a_secret_be_read_allow_one_secret_to_those_who_need_it() -> None:
    lines = permission("team", "hub", [("weightlift", "weightlift-controller"), ("weightlift", "weightlift-agent-p")])
    assert lines == (
        "kubectl -n team create role weightlift-hub --verb=get --resource=secrets --resource-name=hub && "
        "kubectl -n team create rolebinding weightlift-hub --role=weightlift-hub "
        "--serviceaccount=weightlift:weightlift-controller --serviceaccount=weightlift:weightlift-agent-p"
    )


def test_a_secret_names_the_address_of_a_store_only_below_the_pools_prefixes() -> None:
    keys = {"AWS_ACCESS_KEY_ID": b"id", "AWS_SECRET_ACCESS_KEY": SECRET.encode(), "AWS_ENDPOINT_URL": b"https://minio.test"}
    access = access_of("s3://b/m", WHOLE, keys, allowed=["s3://b/", "https://minio.test/"])
    assert isinstance(access, S3Access)
    assert access.endpoint == "https://minio.test"
    with pytest.raises(SourceNotAllowed):
        access_of("s3://b/m", WHOLE, keys, allowed=["s3://b/"])
