"""Keys and certificates for tests, each made in a millisecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra c2pa")

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
EMAIL = "1.3.6.1.5.5.7.3.4"


def studio_files(
    folder: Path, *, first: timedelta = timedelta(days=-1), last: timedelta = timedelta(days=30),
    purpose: str = EMAIL, is_for_signing: bool = True, is_own_issuer: bool = False,
    with_issuer_id: bool = True,
) -> tuple[Path, Path]:  # fmt: skip
    """Write a P-256 certificate with its issuer and the key, as a studio would have them."""
    issuer_key, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    root = _certificate("Root of trust", issuer_key, "Root of trust", issuer_key, first, last, True)
    name = "Root of trust" if is_own_issuer else "Studio Nord"
    builder = _builder(name, key.public_key(), "Root of trust", first, last)
    builder = builder.add_extension(_usage(is_issuer=not is_for_signing), True)
    if purpose:
        kinds = x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)])
        builder = builder.add_extension(kinds, False)
    if with_issuer_id:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(issuer, False)
    own = builder.sign(issuer_key, hashes.SHA256())
    paths = folder / "studio-cert.pem", folder / "studio-key.pem"
    pem = forms.Encoding.PEM
    paths[0].write_bytes(own.public_bytes(pem) + root.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
    paths[1].chmod(0o600)
    return paths


def _usage(*, is_issuer: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_issuer, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=is_issuer, crl_sign=is_issuer,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _builder(
    name: str, key: Any, issuer: str, first: timedelta, last: timedelta
) -> x509.CertificateBuilder:
    def named(text: str) -> x509.Name:
        kinds = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME
        return x509.Name([x509.NameAttribute(kind, text) for kind in kinds])

    return (
        x509.CertificateBuilder(issuer_name=named(issuer), subject_name=named(name))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + first)
        .not_valid_after(NOW + last)
    )


def _certificate(
    name: str,
    key: Any,
    issuer: str,
    issuer_key: Any,
    first: timedelta,
    last: timedelta,
    is_ca: bool,
) -> x509.Certificate:
    builder = _builder(name, key.public_key(), issuer, first, last)
    builder = builder.add_extension(x509.BasicConstraints(is_ca, None), True)
    return builder.add_extension(_usage(is_issuer=is_ca), True).sign(issuer_key, hashes.SHA256())
