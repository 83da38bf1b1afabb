"""`--signing-key` and `--signing-certificates`: the publisher's signature pins the files of an artifact.

Signatures are made by the package `model-signing`, as a publisher makes them.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing

from fetcher.errors import ConfigurationError, DigestMismatch, DigestUnavailable, NotFound, SignatureInvalid, UsageError
from fetcher.manifest import RELATIVE_PATH, Manifest
from fetcher.settings import Signer
from fetcher.testing.effects import Replace
from fetcher.testing.faults import Fault
from fetcher.testing.origin import Origin
from tests.engine.conftest import Fetcher, contents
from tests.lab.command import run_fetcher

FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(range(256)) * 5000, "sub/vocab.json": b"[]"}


class Publisher:
    """Owns a key and a certificate that an authority issued, and signs models."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        authority = ec.generate_private_key(ec.SECP256R1())
        self.private = self._write("private.pem", _private(self._key))
        self.public = self._write("public.pem", _public(self._key))
        self.authority = self._write("authority.pem", _certificate(authority, authority, "authority", authority=True))
        self.certificate = self._write("certificate.pem", _certificate(self._key, authority, "publisher", authority=False))

    def sign(
        self,
        files: dict[str, bytes],
        *,
        certificate: bool = False,
        algorithm: Literal["sha256", "blake2"] = "sha256",
        shards: int = 0,
    ) -> bytes:
        """Return the signature of a model with these files."""
        model = self.directory / "model"
        for path, content in files.items():
            (model / path).parent.mkdir(parents=True, exist_ok=True)
            (model / path).write_bytes(content)
        config = signing.Config()
        if certificate:
            config.use_certificate_signer(
                private_key=self.private, signing_certificate=self.certificate, certificate_chain=[self.authority]
            )
        else:
            config.use_elliptic_key_signer(private_key=self.private)
        how = hashing.Config()
        if shards:
            how.use_shard_serialization(hashing_algorithm=algorithm, shard_size=shards)
        else:
            how.use_file_serialization(hashing_algorithm=algorithm)
        config.set_hashing_config(how).sign(model, self.directory / "model.sig")
        return (self.directory / "model.sig").read_bytes()

    def _write(self, name: str, content: bytes) -> Path:
        (self.directory / name).write_bytes(content)
        return self.directory / name


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _certificate(key: ec.EllipticCurvePrivateKey, issuer: ec.EllipticCurvePrivateKey, name: str, *, authority: bool) -> bytes:
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    by = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(by, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    return builder.add_extension(usage, critical=True).sign(issuer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("signatures") / "publisher")


@pytest.fixture(scope="module")
def signed(publisher: Publisher) -> dict[str, bytes]:
    """A model with its signature."""
    return FILES | {"model.sig": publisher.sign(FILES)}


@pytest.fixture
def signer(publisher: Publisher) -> Signer:
    return Signer(key=publisher.public)


def requested(origin: Origin) -> list[str]:
    """The files whose bytes were requested."""
    return [request.path for request in origin.requests if request.method == "GET" and "/api/" not in request.path]


class TestSigned:
    async def test_every_file_gets_the_digest_that_was_signed(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        origin.add_repo("org/model", signed)
        artifact = await fetch(expect_file="model.sig", signer=signer, require_digests=True)
        assert contents(artifact.path) == signed
        manifest = Manifest.read(artifact.path / RELATIVE_PATH)
        assert manifest is not None
        assert {file.path for file in manifest.files if any(each.algorithm == "sha256" for each in file.digests)} >= set(FILES)

    async def test_a_certificate_of_a_trusted_authority_does_too(
        self, origin: Origin, fetch: Fetcher, publisher: Publisher
    ) -> None:
        origin.add_repo("org/model", FILES | {"model.sig": publisher.sign(FILES, certificate=True)})
        artifact = await fetch(expect_file="model.sig", signer=Signer(certificates=publisher.authority))
        assert artifact.verified

    async def test_the_signature_may_be_a_local_file(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer, tmp_path: Path
    ) -> None:
        origin.add_repo("org/model", FILES)
        (tmp_path / "model.sig").write_bytes(signed["model.sig"])
        assert (await fetch(expect_file=str(tmp_path / "model.sig"), signer=signer)).verified

    async def test_a_hit_verifies_the_signature_without_network(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        origin.add_repo("org/model", signed)
        await fetch(expect_file="model.sig", signer=signer)
        origin.stop()
        assert (await fetch(expect_file="model.sig", signer=signer)).cached

    def test_on_the_command_line_the_key_is_enough(
        self, origin: Origin, signed: dict[str, bytes], publisher: Publisher, tmp_path: Path
    ) -> None:
        origin.add_repo("org/model", signed)
        env = {"HF_ENDPOINT": origin.endpoint}
        words = ("hf://org/model", "--cache-dir", tmp_path / "cache", "--signing-key", publisher.public)
        done = run_fetcher("fetch", *words, env=env)
        assert done.returncode == 0, done.stderr
        assert run_fetcher("verify", *words).returncode == 0
        (Path(done.stdout.strip()) / "config.json").write_bytes(b'{"model_type": "gpt2"}!')
        assert run_fetcher("verify", *words).returncode == 65


class TestNotSigned:
    async def refused(self, origin: Origin, fetch: Fetcher, files: dict[str, bytes], signer: Signer) -> str:
        """Fetch, and return why it was refused. Nothing but the signature was fetched, and nothing is visible."""
        origin.add_repo("org/model", files)
        with pytest.raises(SignatureInvalid) as caught:
            await fetch(expect_file="model.sig", signer=signer)
        assert all(path.endswith("model.sig") for path in requested(origin))
        assert fetch.visible() == []
        return caught.value.message

    async def test_another_key(self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], tmp_path: Path) -> None:
        other = Signer(key=Publisher(tmp_path / "other").public)
        assert "was not signed by" in await self.refused(origin, fetch, signed, other)

    async def test_a_certificate_of_another_authority(
        self, origin: Origin, fetch: Fetcher, publisher: Publisher, tmp_path: Path
    ) -> None:
        files = FILES | {"model.sig": publisher.sign(FILES, certificate=True)}
        other = Signer(certificates=Publisher(tmp_path / "other").authority)
        assert "was not signed by" in await self.refused(origin, fetch, files, other)

    @pytest.mark.parametrize("change", ["a digest", "a name", "the signature", "no signature", "the type"])
    async def test_a_changed_bundle(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer, change: str
    ) -> None:
        bundle = json.loads(signed["model.sig"])
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        match change:
            case "a digest":
                digest = json.loads(payload)["predicate"]["resources"][0]["digest"]
                payload = payload.replace(digest.encode(), b"0" * 64)
            case "a name":
                payload = payload.replace(b"config.json", b"Config.json")
            case "the signature":
                envelope["signatures"][0]["sig"] = base64.b64encode(b"nonsense").decode()
            case "no signature":
                envelope["signatures"] = []
            case _:
                envelope["payloadType"] = "text/plain"
        envelope["payload"] = base64.b64encode(payload).decode()
        await self.refused(origin, fetch, signed | {"model.sig": json.dumps(bundle).encode()}, signer)

    @pytest.mark.parametrize("content", [b"", b"{}", b'{"dsseEnvelope": 1}', b"[" * 100_000, b"\xff\xfe", b"0" * 64 + b"  a\n"])
    async def test_what_is_no_bundle(self, origin: Origin, fetch: Fetcher, signer: Signer, content: bytes) -> None:
        await self.refused(origin, fetch, FILES | {"model.sig": content}, signer)

    @pytest.mark.parametrize(("algorithm", "shards"), [("blake2", 0), ("sha256", 1_000_000)])
    async def test_digests_that_are_not_those_of_whole_files(
        self,
        origin: Origin,
        fetch: Fetcher,
        publisher: Publisher,
        signer: Signer,
        algorithm: Literal["sha256", "blake2"],
        shards: int,
    ) -> None:
        files = FILES | {"model.sig": publisher.sign(FILES, algorithm=algorithm, shards=shards)}
        assert "SHA-256 of whole files" in await self.refused(origin, fetch, files, signer)

    async def test_a_file_that_was_changed_after_the_signature(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        origin.add_repo("org/model", signed | {"config.json": b'{"model_type": "evil!"}'})
        with pytest.raises(DigestMismatch, match=r"config\.json"):
            await fetch(expect_file="model.sig", signer=signer)
        assert fetch.visible() == []

    async def test_a_file_that_the_source_sends_otherwise_than_signed(
        self, origin: Origin, fetch: Fetcher, publisher: Publisher, signer: Signer, tmp_path: Path
    ) -> None:
        """A source without digests of its own."""
        (tmp_path / "one.sig").write_bytes(Publisher.sign(publisher, {"model.bin": b"weights"} | FILES))
        address = origin.add_file("/model.bin", b"weights")
        origin.faults.add(Fault(Replace(b"changed")))
        with pytest.raises((DigestMismatch, NotFound)):
            await fetch(address, expect_file=str(tmp_path / "one.sig"), signer=signer)
        assert fetch.visible() == []


class TestCoverage:
    async def test_a_file_beside_the_signed_ones_is_refused_by_name(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        """It could be a pickle that a server prefers to the signed weights."""
        origin.add_repo("org/model", signed | {"pytorch_model.bin": b"pickle"})
        with pytest.raises(DigestUnavailable, match=r"pytorch_model\.bin.? is not covered by the signature"):
            await fetch(expect_file="model.sig", signer=signer)
        assert (await fetch(expect_file="model.sig", signer=signer, exclude=["*.bin"])).verified

    async def test_what_the_signer_left_out_on_purpose_is_allowed(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        origin.add_repo("org/model", signed | {".gitattributes": b"*.bin filter=lfs"})
        assert (await fetch(expect_file="model.sig", signer=signer)).verified

    async def test_a_cached_copy_with_another_file_is_no_hit(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        origin.add_repo("org/model", signed | {"pytorch_model.bin": b"pickle"})
        await fetch()
        with pytest.raises(DigestUnavailable):
            await fetch(expect_file="model.sig", signer=signer)

    async def test_a_signed_file_that_is_missing_is_an_error(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer
    ) -> None:
        origin.add_repo("org/model", {path: content for path, content in signed.items() if path != "config.json"})
        with pytest.raises(NotFound, match=r"names .config\.json."):
            await fetch(expect_file="model.sig", signer=signer)


class TestUsage:
    async def test_a_signature_without_signer_is_not_believed(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes]
    ) -> None:
        origin.add_repo("org/model", signed)
        with pytest.raises(ConfigurationError, match="--signing-key"):
            await fetch(expect_file="model.sig")

    @pytest.mark.parametrize("key", ["missing", "not a key", "a private key"])
    async def test_a_key_that_cannot_be_used(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], publisher: Publisher, tmp_path: Path, key: str
    ) -> None:
        origin.add_repo("org/model", signed)
        path = publisher.private if key == "a private key" else tmp_path / "key.pem"
        if key == "not a key":
            path.write_text("nonsense")
        with pytest.raises(ConfigurationError, match="give a PEM file"):
            await fetch(expect_file="model.sig", signer=Signer(key=path))

    async def test_without_the_package_one_sentence_says_how_to_get_it(
        self, origin: Origin, fetch: Fetcher, signed: dict[str, bytes], signer: Signer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        origin.add_repo("org/model", signed)
        monkeypatch.setitem(sys.modules, "model_signing.verifying", None)
        with pytest.raises(ConfigurationError, match=r"pip install 'weightlift\[sign\]'"):
            await fetch(expect_file="model.sig", signer=signer)

    @pytest.mark.parametrize(
        "make",
        [
            Signer,
            lambda: Signer(key=Path("a"), certificates=Path("b")),
            lambda: Signer(identity="a@b"),
            lambda: Signer(key=Path("a"), issuer="https://b"),
        ],
    )
    def test_exactly_one_signer_is_named(self, make: Callable[[], Signer]) -> None:
        with pytest.raises(UsageError):
            make()
