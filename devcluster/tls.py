"""Certificates: an authority of the cluster's own, what it issues, and contexts made of them."""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devcluster.paths import write_private

# A cluster for tests lives for minutes; this is for one that somebody forgets over a holiday.
VALID = timedelta(days=30)
# A clock that is set back a little must not make a new certificate one of the future.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True, repr=False)
class Pair:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> None:
        """Keep it as `<name>.crt` and `<name>.key`, readable by the owner only."""
        write_private(folder / f"{name}.key", self.key)
        write_private(folder / f"{name}.crt", self.certificate)


class Authority:
    """Issues certificates."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key is not one of an elliptic curve")
        self._key = key

    @classmethod
    def create(cls, name: str) -> Self:
        """Make a new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        usage = _key_usage(signs_certificates=True)
        certificate = (
            _builder(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return cls(_pair(certificate, key))

    @classmethod
    def read(cls, folder: Path, name: str) -> Self:
        """Find one again that was written with `Pair.write`."""
        certificate = (folder / f"{name}.crt").read_bytes()
        return cls(Pair(certificate, (folder / f"{name}.key").read_bytes()))

    def issue(self, name: str, *, groups: Sequence[str] = (), hosts: Sequence[str] = ()) -> Pair:
        """Make a certificate for a client, or for a server if hosts are given, or for both.

        Args:
            name: Its common name; for the API server the name of a user.
            groups: Its organisations; for the API server the groups of the user.
            hosts: Names and addresses under which a server is reached.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _builder(_subject(name, groups), self._certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if hosts:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        certificate = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False).sign(
            self._key, hashes.SHA256()
        )
        return _pair(certificate, key)


def signing_key() -> tuple[bytes, bytes]:
    """A private and its public key in PEM, for the tokens of service accounts."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _private_pem(key), public


def expires(certificate: bytes) -> datetime:
    """Until when a certificate in PEM holds."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def server_context(pair: Pair) -> ssl.SSLContext:
    """What a server speaks TLS with; HTTP/1.1 only."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, pair)
    return context


def client_context(authority: bytes | None, pair: Pair | None = None) -> ssl.SSLContext:
    """What a client speaks TLS with.

    Args:
        authority: Whom the server's certificate is checked against, in PEM; None means whom the
            system trusts.
        pair: What the client shows of itself.
    """
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if pair:
        _load(context, pair)
    return context


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    # Python reads a key from a file only. Where the system has files without a place on disk, a
    # process that is killed in between leaves none behind.
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("pair"), "wb") as file:
            file.write(pair.certificate + b"\n" + pair.key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return
    with tempfile.TemporaryDirectory(prefix="devcluster-") as folder:
        pair.write(Path(folder), "pair")
        context.load_cert_chain(Path(folder) / "pair.crt", Path(folder) / "pair.key")


def _subject(name: str, groups: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + VALID)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # SEC1 is what the API server reads as the key of service accounts, and TLS reads it as well.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
