"""Certificate authorities: those of the system and of every variable that names a bundle. Certificates are always checked."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from fetcher.errors import ConfigurationError
from fetcher.transport.trust import tls_context

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


def authorities(context: ssl.SSLContext) -> set[bytes]:
    return set(context.get_ca_certs(binary_form=True))


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    """The certificate of an authority unrelated to that of the lab."""
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_the_default_is_the_store_of_the_system() -> None:
    assert authorities(tls_context({})) == authorities(ssl.create_default_context())


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_adds_its_bundle_to_the_store_of_the_system(authority_file: Path, name: str) -> None:
    found = authorities(tls_context({name: f" {authority_file} "}))
    assert found == authorities(ssl.create_default_context()) | {der(authority_file)}


def test_several_bundles_add_up(authority_file: Path, other_file: Path) -> None:
    found = authorities(tls_context({"SSL_CERT_FILE": str(authority_file), "AWS_CA_BUNDLE": str(other_file)}))
    assert found >= {der(authority_file), der(other_file)}


def test_all_variables_can_name_the_same_bundle(authority_file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to(authority_file)
    named = dict.fromkeys(VARIABLES, str(authority_file)) | {"CURL_CA_BUNDLE": str(tmp_path / "link.pem")}
    assert der(authority_file) in authorities(tls_context(named))


def test_a_directory_of_hashed_names_is_accepted(tmp_path: Path) -> None:
    tls_context({"SSL_CERT_FILE": str(tmp_path)})


@pytest.mark.parametrize("environ", [{}, {"SSL_CERT_FILE": ""}, {"SSL_CERT_FILE": "  "}])
def test_certificates_and_names_are_always_checked(environ: dict[str, str]) -> None:
    context = tls_context(environ)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_invalid_bundle_is_reported_with_its_variable(tmp_path: Path, name: str, content: bytes | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^{name} names {bundle}, which cannot be read"):
        tls_context({name: str(bundle)})
