"""Certificate authorities: the system's, and those of every variable that names a bundle; never fewer, never unchecked."""

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
    """The certificate of an authority that has nothing to do with the lab's."""
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_without_variables_it_is_the_systems() -> None:
    assert authorities(tls_context({})) == authorities(ssl.create_default_context())


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_adds_its_bundle_to_the_systems(authority_file: Path, name: str) -> None:
    found = authorities(tls_context({name: f" {authority_file} "}))
    assert found == authorities(ssl.create_default_context()) | {der(authority_file)}


def test_several_bundles_add_up(authority_file: Path, other_file: Path) -> None:
    found = authorities(tls_context({"SSL_CERT_FILE": str(authority_file), "AWS_CA_BUNDLE": str(other_file)}))
    assert found >= {der(authority_file), der(other_file)}


def test_one_bundle_may_be_named_by_all(authority_file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.pem").symlink_to(authority_file)
    named = dict.fromkeys(VARIABLES, str(authority_file)) | {"CURL_CA_BUNDLE": str(tmp_path / "link.pem")}
    assert der(authority_file) in authorities(tls_context(named))


def test_a_directory_of_hashed_names_will_do(tmp_path: Path) -> None:
    tls_context({"SSL_CERT_FILE": str(tmp_path)})


@pytest.mark.parametrize("environ", [{}, {"SSL_CERT_FILE": ""}, {"SSL_CERT_FILE": "  "}])
def test_certificates_and_names_are_always_checked(environ: dict[str, str]) -> None:
    context = tls_context(environ)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_bundle_that_is_none_is_told_with_its_variable(tmp_path: Path, name: str, content: bytes | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^{name} names {bundle}, which cannot be read"):
        tls_context({name: str(bundle)})
