"""Certificates by which the nodes of a pool know each other: an authority vouches for the name and the address of a node's key.

A node keeps its private key to itself. The authority's is in a Secret that only the controller reads.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fetcher.errors import ConfigurationError
from fetcher.reach import embedded

AUTHORITY_DAYS = 3650
NODE_DAYS = 30
_FRESH = 1 / 3
"""The part of its life in which a certificate is replaced: an absence of ten days of the controller does no harm."""
_SKEW = timedelta(hours=1)
"""Clocks of nodes differ."""
_CURVE = ec.SECP256R1()


class Authority:
    """Vouches for nodes: a certificate in PEM, and its private key."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Raises ConfigurationError for what is no authority."""
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
            self._key = serialization.load_pem_private_key(key, password=None)
            extension = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except (ValueError, TypeError, x509.ExtensionNotFound) as error:
            raise ConfigurationError(f"it holds no authority: {error}") from error
        if not extension.value.ca or self._certificate.public_key() != self._key.public_key():
            raise ConfigurationError("it holds no authority: the certificate may not vouch for others, or has another key")

    @property
    def pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def ends_soon(self, now: datetime) -> bool:
        return _ends_soon(self._certificate, now)

    def issue(self, node: str, address: str, key: str, now: datetime) -> str:
        """Return the certificate of a node in PEM. Raises ConfigurationError for an address or a key that is none."""
        public, host = public_key(key), host_of(address)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(min(now + timedelta(days=NODE_DAYS), self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(node), x509.IPAddress(host)]), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        signed = builder.sign(self._key, hashes.SHA256())  # type: ignore[arg-type]  # a key that signs, or it says so
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def vouches(self, certificate: str | None, node: str, address: str, key: str, now: datetime) -> bool:
        """Whether a certificate is ours, for this node, address and key, and lasts for a while."""
        try:
            found = _read(certificate or "")
            found.verify_directly_issued_by(self._certificate)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return (
            names.get_values_for_type(x509.DNSName) == [node]
            and names.get_values_for_type(x509.IPAddress) == [host_of(address)]
            and is_of(certificate, key)
            and not _ends_soon(found, now)
        )


def new_authority(now: datetime) -> tuple[bytes, bytes]:
    """Return the certificate and the private key of a new authority, both in PEM."""
    key = ec.generate_private_key(_CURVE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weightlift peers")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _private(key)


def new_key() -> tuple[bytes, str]:
    """Return a private key in PEM, and its public key as `NodeCacheStatus.peer_key` has it."""
    key = ec.generate_private_key(_CURVE)
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _private(key), base64.b64encode(public).decode()


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """Read a public key. Raises ConfigurationError for another kind than ours: others can take seconds to verify."""
    try:
        key = serialization.load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, TypeError) as error:
        raise ConfigurationError("the key of a node's peer is none") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError("the key of a node's peer is of another kind than P-256")
    return key


def is_of(certificate: str | None, key: str) -> bool:
    """Whether a certificate is for this public key."""
    try:
        return _read(certificate or "").public_key() == public_key(key)
    except (ValueError, TypeError, ConfigurationError):
        return False


def host_of(address: str) -> IPv4Address | IPv6Address:
    """Return the IP address in the base URL of a peer, in the one spelling that agents write.

    Raises ConfigurationError for any other, and for one where no peer can be: others are told of it.
    """
    try:
        parts = urlsplit(address)
        host, port = ip_address(parts.hostname or ""), parts.port
    except ValueError as error:
        raise ConfigurationError(_no_address(address)) from error
    if not port or address != f"https://{f'[{host}]' if host.version == 6 else host}:{port}":
        raise ConfigurationError(_no_address(address))
    reached = embedded(host)
    if reached.is_link_local or reached.is_multicast or reached.is_unspecified:
        raise ConfigurationError(f"no peer can be at {host}")
    return host


def _no_address(text: str) -> str:
    return f"{text} is no address of a peer; write https://10.0.0.7:8650, with a port from 1 to 65535"


@lru_cache(maxsize=4096)
def _read(certificate: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.encode())


def _ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return now < begins or ends - now < (ends - begins) * _FRESH


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def now() -> datetime:
    return datetime.now(UTC)
