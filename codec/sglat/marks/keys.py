"""Keys and certificates that marks are signed with: made here, or the user's own."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sglat.errors import MissingExtraError, UsageError
from sglat.files import open_input, refuse_existing
from sglat.marks.certificates import check_certificate, check_issuers, common_name, issuer_name

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KEY_NAME: Final = "sign-key.pem"
CERTIFICATE_NAME: Final = "sign-cert.pem"
MAX_FILE_BYTES: Final = 1 << 16  # a chain of ten RSA certificates takes 20 kB
MAX_NAME_BYTES: Final = 64  # of a common name, RFC 5280 appendix A.1
MAX_CHAIN: Final = 10
LOCAL_ISSUER: Final = "sglat self-signed issuer"
LOCAL_DAYS: Final = 3650
CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A private key and the certificates that name its owner."""

    certificates_pem: bytes
    """The owner's certificate first, then its issuers."""
    key_pem: bytes = field(repr=False)
    """Private key, PKCS #8."""
    algorithm: str
    """`ed25519`, `es256`, `es384`, `es512` or `ps256`, as COSE names it."""
    name: str
    """Common name of the owner's certificate."""
    is_local: bool
    """Made by `make_signer`: nobody else vouches for the name."""
    expires: datetime

    @property
    def title(self) -> str:
        """Name for messages."""
        return f"{self.name} (self-signed)" if self.is_local else self.name

    def ed25519(self) -> Any | None:
        """Return the private key for `.sglat` files; None if it is of another kind."""
        if self.algorithm != "ed25519":
            return None
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        return load_pem_private_key(self.key_pem, None)


def config_folder() -> Path:
    """Return the folder of keys: `SGLAT_CONFIG`, else the XDG convention."""
    if home := os.environ.get("SGLAT_CONFIG"):
        return Path(home).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "sglat"


def find_signer(
    certificate: Path | None = None, key: Path | None = None, *, folder: Path | None = None
) -> Signer | None:
    """Return the signer of two files, or that of the configuration; None if there is none.

    Args:
        certificate: PEM file with the owner's certificate first.
        key: PEM file with the private key.
        folder: of the configuration.

    Raises:
        UsageError: `bad-options` for one file without the other, and the codes of `load_signer`.
    """
    if (certificate is None) != (key is None):
        missing = "--sign-key" if key is None else "--sign-cert"
        raise UsageError(
            "bad-options", f"--sign-cert and --sign-key need each other: add {missing}"
        )
    if certificate is not None and key is not None:
        return load_signer(certificate, key)
    folder = folder or config_folder()
    paths = folder / CERTIFICATE_NAME, folder / KEY_NAME
    found = [path.exists() for path in paths]
    if not any(found):
        return None
    if not all(found):
        missing_path = paths[found.index(False)]
        raise UsageError(
            "bad-key", f"expected {missing_path} beside its other half; sgl-marks init makes both"
        )
    return load_signer(*paths)


def load_signer(certificate: Path, key: Path) -> Signer:
    """Return the signer of two PEM files.

    Raises:
        UsageError: `key-open` if others may read the key; `bad-key`; `bad-certificate` if it is not
            valid now, not for this key, or not for signing.
        MissingExtraError: cryptography is not installed.
    """
    private, algorithm = _load_key(key)
    chain = _load_chain(certificate)
    own = chain[0]
    if own.public_key() != private.public_key():
        raise UsageError(
            "bad-certificate", f"the certificate of {certificate} is not that of the key in {key}"
        )
    check_certificate(own, certificate)
    check_issuers(chain, certificate)
    from cryptography.hazmat.primitives import serialization as forms

    pem = forms.Encoding.PEM
    return Signer(
        certificates_pem=b"".join(each.public_bytes(pem) for each in chain),
        key_pem=private.private_bytes(pem, forms.PrivateFormat.PKCS8, forms.NoEncryption()),
        algorithm=algorithm,
        name=common_name(own),
        is_local=issuer_name(own) == LOCAL_ISSUER,
        expires=own.not_valid_after_utc,
    )


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whose signatures are known to a checker."""

    certificates_pem: bytes = b""
    """Of signers and issuers."""
    public_keys: frozenset[bytes] = frozenset()
    """Ed25519 keys of these certificates."""


def load_trust(path: Path | None = None, *, folder: Path | None = None) -> Trust:
    """Return the certificates of the configuration and, if given, of a PEM file.

    Raises:
        UsageError: `bad-certificate` for a file without certificates.
        MissingExtraError: a file was given, and cryptography is not installed.
    """
    own = (folder or config_folder()) / CERTIFICATE_NAME
    chains: list[Certificate] = []
    if own.exists():
        with suppress(UsageError, MissingExtraError):  # a signer's fault; others can be checked
            chains += _load_chain(own)
    if path is not None:
        chains += _load_chain(path)
    if not chains:
        return Trust()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding

    keys = [certificate.public_key() for certificate in chains]
    return Trust(
        certificates_pem=b"".join(each.public_bytes(Encoding.PEM) for each in chains),
        public_keys=frozenset(
            k.public_bytes_raw() for k in keys if isinstance(k, Ed25519PublicKey)
        ),
    )


def _read(path: Path) -> bytes:
    with open_input(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(
            "bad-key", f"expected at most {MAX_FILE_BYTES} bytes in {path}, found more"
        )
    return data


def _load_key(path: Path) -> tuple[Any, str]:
    try:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError as error:
        raise MissingExtraError("cryptography", extra="c2pa") from error
    data = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise UsageError(
            "key-open",
            f"expected a private key that its owner alone may read, {path} has mode {mode:03o}; "
            f"run: chmod 600 {path}",
        )
    try:
        private = load_pem_private_key(data, None)
    except TypeError as error:
        raise UsageError(
            "bad-key", f"{path} is encrypted; write it once more without a passphrase"
        ) from error
    except Exception as error:  # ValueError, UnsupportedAlgorithm and those of OpenSSL
        raise UsageError(
            "bad-key", f"expected a private key in PEM in {path}, found none"
        ) from error
    return private, _algorithm_of(private, path)


def _algorithm_of(private: Any, path: Path) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return "ps256"
    raise UsageError(
        "bad-key", f"expected Ed25519, P-256, P-384, P-521 or RSA from 2048 bits in {path}"
    )


def _load_chain(path: Path) -> list[Certificate]:
    try:
        from cryptography.x509 import load_pem_x509_certificates
    except ImportError as error:
        raise MissingExtraError("cryptography", extra="c2pa") from error
    try:
        chain = load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise UsageError(
            "bad-certificate",
            f"expected certificates in PEM in {path}, found none that can be read",
        ) from error
    if len(chain) > MAX_CHAIN:
        raise UsageError(
            "bad-certificate",
            f"expected at most {MAX_CHAIN} certificates in {path}, found {len(chain)}",
        )
    return chain


def make_signer(
    name: str, *, folder: Path | None = None, days: int = LOCAL_DAYS, force: bool = False
) -> Signer:
    """Make an Ed25519 key with a certificate and write both into the configuration.

    C2PA takes no certificate that is its own issuer. So an issuer is made too, whose private key is
    dropped as soon as it has signed; whoever compares the certificate can trust this one key.

    Args:
        name: of the signer, as others shall read it.
        folder: of the configuration.
        days: from now on.
        force: replace an older key.

    Raises:
        UsageError: `output-exists`; `bad-name`.
        MissingExtraError: cryptography is not installed.
    """
    if not name.strip() or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise UsageError(
            "bad-name",
            f"expected a printable name of 1 to {MAX_NAME_BYTES} bytes, got {name!r:.80}",
        )
    try:
        from cryptography.hazmat.primitives import serialization as forms
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise MissingExtraError("cryptography", extra="c2pa") from error
    folder = folder or config_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = folder / CERTIFICATE_NAME, folder / KEY_NAME
    for path in paths:
        refuse_existing(path, force=force)
    key = Ed25519PrivateKey.generate()
    chain = local_chain(name, key.public_key(), days=days)
    pem = forms.Encoding.PEM
    secret = key.private_bytes(pem, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    _write_private(paths[1], secret)
    paths[0].write_bytes(b"".join(each.public_bytes(pem) for each in chain))
    return load_signer(*paths)


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that at no time can be read by others."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    partial.replace(path)


def local_chain(
    name: str, public_key: Any, *, days: int, now: datetime | None = None
) -> list[Certificate]:
    """Return a certificate for a key and that of the issuer made for it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509.oid import NameOID

    now = now or datetime.now(UTC)
    issuer_key = Ed25519PrivateKey.generate()

    def named(common: str) -> Any:
        pairs = (
            (NameOID.COMMON_NAME, common),
            (NameOID.ORGANIZATION_NAME, f"{name} (self-signed)"[:64]),
        )
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in pairs])

    def certificate(subject: Any, key: Any, *, is_issuer: bool) -> Certificate:
        usage = x509.KeyUsage(
            digital_signature=not is_issuer, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=is_issuer,
            crl_sign=is_issuer, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=named(LOCAL_ISSUER))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))  # clocks differ
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_issuer, 0 if is_issuer else None), True)
            .add_extension(usage, True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        )
        if not is_issuer:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
            purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.4")])
            builder = builder.add_extension(purpose, False).add_extension(identifier, False)
        return builder.sign(issuer_key, None)

    return [
        certificate(named(name), public_key, is_issuer=False),
        certificate(named(LOCAL_ISSUER), issuer_key.public_key(), is_issuer=True),
    ]
