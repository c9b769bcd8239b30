"""Keys for signing: made here, read, and refused with one line."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import ed448
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sglat.errors import UsageError
from sglat.marks import keys
from sglat.marks.certificates import check_issuers
from tests.support.signers import studio_files

PEM = forms.Encoding.PEM
PKCS8 = forms.PrivateFormat.PKCS8


def refused(certificate: Path, key: Path) -> str:
    with pytest.raises(UsageError) as caught:
        keys.load_signer(certificate, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_key_is_read_back_and_called_self_signed(tmp_path: Path) -> None:
    made = keys.make_signer("Jo Doe", folder=tmp_path)
    found = keys.find_signer(folder=tmp_path)
    assert found == made
    assert (found.title, found.algorithm) == ("Jo Doe (self-signed)", "ed25519")


def test_a_new_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    keys.make_signer("Jo", folder=tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new" / keys.KEY_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_an_older_key_is_kept_unless_forced(tmp_path: Path) -> None:
    first = keys.make_signer("Jo", folder=tmp_path)
    with pytest.raises(UsageError, match="output-exists"):
        keys.make_signer("Jo", folder=tmp_path)
    assert keys.find_signer(folder=tmp_path) == first
    assert keys.make_signer("Jo", folder=tmp_path, force=True) != first


def test_without_a_key_there_is_no_signer(tmp_path: Path) -> None:
    assert keys.find_signer(folder=tmp_path / "none") is None


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "ä" * 40, "\x1b[2J"])
def test_names_that_cannot_stand_in_a_certificate_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="bad-name"):
        keys.make_signer(name, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    certificate, key = studio_files(tmp_path)
    key.chmod(mode)
    message = refused(certificate, key)
    assert "key-open" in message and f"chmod 600 {key}" in message


def test_a_studios_own_certificate_is_taken(tmp_path: Path) -> None:
    found = keys.load_signer(*studio_files(tmp_path))
    assert (found.title, found.algorithm, found.is_local) == ("Studio Nord", "es256", False)
    assert found.ed25519() is None


def test_expired_and_early_certificates_are_refused(tmp_path: Path) -> None:
    files = studio_files(tmp_path, first=timedelta(days=-9), last=timedelta(days=-2))
    assert "has expired" in refused(*files)
    assert "not valid yet" in refused(*studio_files(tmp_path, first=timedelta(days=2)))


def test_certificates_that_no_c2pa_reader_takes_are_refused(tmp_path: Path) -> None:
    server = "1.3.6.1.5.5.7.3.1"
    assert "its own issuer" in refused(*studio_files(tmp_path, is_own_issuer=True))
    assert "its purpose" in refused(*studio_files(tmp_path, purpose=server))
    assert "lacks the extension extendedKeyUsage" in refused(*studio_files(tmp_path, purpose=""))
    assert "not for signatures" in refused(*studio_files(tmp_path, is_for_signing=False))
    assert "lacks the extension authorityKey" in refused(
        *studio_files(tmp_path, with_issuer_id=False)
    )


def test_a_chain_that_does_not_hang_together_is_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    mark = b"-----BEGIN CERTIFICATE-----"
    (certificate, key), (other, _) = (studio_files(folder) for folder in folders[:2])
    own, root = (mark + each for each in certificate.read_bytes().split(mark)[1:])
    foreign = mark + other.read_bytes().split(mark)[2]
    for chain in (own + foreign, own + own + root, own + root + foreign):
        certificate.write_bytes(chain)
        assert "did not issue certificate" in refused(certificate, key)
    certificate.write_bytes(own)  # the issuer's may be known to readers
    assert keys.load_signer(certificate, key).name == "Studio Nord"


def test_an_issuer_that_has_expired_is_refused(tmp_path: Path) -> None:
    chain = keys.load_signer(*studio_files(tmp_path)).certificates_pem
    certificates = x509.load_pem_x509_certificates(chain)
    with pytest.raises(UsageError, match="certificate 2 of a is not valid today"):
        check_issuers(certificates, Path("a"), now=datetime.now(UTC) + timedelta(days=90))


def test_the_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    certificate, _ = studio_files(tmp_path)
    keys.make_signer("Jo", folder=tmp_path)
    assert "not that of the key" in refused(certificate, tmp_path / keys.KEY_NAME)


def test_files_that_hold_no_key_are_refused(tmp_path: Path) -> None:
    certificate, key = studio_files(tmp_path)
    for data in (b"", b"\xff" * 99, certificate.read_bytes(), b"x" * (keys.MAX_FILE_BYTES + 1)):
        key.write_bytes(data)
        assert "bad-key" in refused(certificate, key)
    secret = Ed25519PrivateKey.generate()
    key.write_bytes(secret.private_bytes(PEM, PKCS8, forms.BestAvailableEncryption(b"word")))
    assert "is encrypted" in refused(certificate, key)
    odd = ed448.Ed448PrivateKey.generate()
    key.write_bytes(odd.private_bytes(PEM, PKCS8, forms.NoEncryption()))
    assert "expected Ed25519, P-256" in refused(certificate, key)


def test_files_that_hold_no_certificate_are_refused(tmp_path: Path) -> None:
    certificate, key = studio_files(tmp_path)
    good = certificate.read_bytes()
    for data in (b"", b"\0" * 50, good[:200], good * 8):
        certificate.write_bytes(data)
        assert "bad-certificate" in refused(certificate, key)


def test_one_half_alone_is_refused(tmp_path: Path) -> None:
    certificate, key = studio_files(tmp_path)
    with pytest.raises(UsageError, match="add --sign-key"):
        keys.find_signer(certificate, None)
    with pytest.raises(UsageError, match="add --sign-cert"):
        keys.find_signer(None, key)
    (tmp_path / keys.KEY_NAME).write_bytes(key.read_bytes())
    with pytest.raises(UsageError, match=keys.CERTIFICATE_NAME):
        keys.find_signer(folder=tmp_path)


def test_own_and_given_certificates_are_trusted(tmp_path: Path) -> None:
    own = keys.make_signer("Jo", folder=tmp_path)
    certificate, _ = studio_files(tmp_path)
    found = keys.load_trust(certificate, folder=tmp_path)
    assert found.certificates_pem.count(b"BEGIN CERT") == 4
    private = own.ed25519()
    assert private is not None
    assert private.public_key().public_bytes_raw() in found.public_keys


def test_a_damaged_own_certificate_does_not_stop_a_check(tmp_path: Path) -> None:
    (tmp_path / keys.CERTIFICATE_NAME).write_bytes(b"rubbish")
    assert keys.load_trust(folder=tmp_path) == keys.Trust()
    with pytest.raises(UsageError, match="bad-certificate"):
        keys.load_trust(tmp_path / keys.CERTIFICATE_NAME, folder=tmp_path / "none")
