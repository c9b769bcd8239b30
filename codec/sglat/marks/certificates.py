"""Whether a certificate is one that C2PA readers take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sglat.errors import UsageError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

# Key purposes that C2PA takes: e-mail protection, document signing, C2PA claim signing.
PURPOSES: Final = frozenset({"1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"})


def check_certificate(own: Certificate, path: Path, *, now: datetime | None = None) -> None:
    """Refuse a certificate that a C2PA reader would not take.

    Source: C2PA technical specification 2.2, section 14.5 (X.509 certificates).

    Raises:
        UsageError: `bad-certificate`.
    """
    now = now or datetime.now(UTC)
    first, last = own.not_valid_before_utc, own.not_valid_after_utc
    if not first <= now <= last:
        what = "has expired" if now > last else "is not valid yet"
        advice = "renew it" if now > last else "check the clock"
        raise UsageError(
            "bad-certificate",
            f"the certificate of {path} {what}: valid {first:%Y-%m-%d} to {last:%Y-%m-%d}, today "
            f"is {now:%Y-%m-%d}; {advice}, or make a new key: sgl-marks init --force",
        )
    fault = _profile_fault(own)
    if fault:
        raise UsageError(
            "bad-certificate", f"C2PA does not take the certificate of {path}: {fault}"
        )


def check_issuers(chain: Sequence[Certificate], path: Path, *, now: datetime | None = None) -> None:
    """Refuse a chain in which a certificate is not issued by the next one, or an issuer's is not
    valid now: readers could not follow it.

    Raises:
        UsageError: `bad-certificate`.
    """
    now = now or datetime.now(UTC)
    for number, (own, issuer) in enumerate(pairwise(chain), start=1):
        try:
            own.verify_directly_issued_by(issuer)
        except Exception as error:  # ValueError, TypeError, InvalidSignature, unknown algorithms
            raise UsageError(
                "bad-certificate",
                f"certificate {number + 1} of {path} did not issue certificate {number}; put the "
                "owner's first, then its issuer's, and so on",
            ) from error
        if not issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc:
            raise UsageError(
                "bad-certificate",
                f"the issuer's certificate {number + 1} of {path} is not valid today: valid "
                f"{issuer.not_valid_before_utc:%Y-%m-%d} to {issuer.not_valid_after_utc:%Y-%m-%d}",
            )


def _profile_fault(own: Certificate) -> str:
    """Return what a certificate lacks; empty if nothing."""
    from cryptography import x509

    try:
        extensions = own.extensions
        if own.subject == own.issuer:
            return "it is its own issuer; sgl-marks init makes one with an issuer"
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound as error:
        return f"it lacks the extension {error.oid._name}"
    except ValueError:
        return "its extensions cannot be read"
    if not usage.digital_signature:
        return "its key is not for signatures"
    if not PURPOSES & {purpose.dotted_string for purpose in purposes}:
        return "its purpose is none of e-mail protection, document signing and C2PA claim signing"
    return ""


def common_name(certificate: Certificate) -> str:
    """Return the common name of a certificate's owner, else the whole name."""
    return _common(certificate.subject)


def issuer_name(certificate: Certificate) -> str:
    return _common(certificate.issuer)


def _common(name: Any) -> str:
    from cryptography.x509.oid import NameOID

    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else str(name.rfc4514_string())
