"""C2PA manifests, read with c2pa-python's own reader: valid, found changed, kept, and refused."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sglat.errors import MissingExtraError, SglatError
from sglat.marks import c2pa, keys
from sglat.marks.c2pa import Claim, read_manifest, sign_media
from sglat.marks.embedded import read_embedded
from sglat.media.reader import VideoReader
from tests.support.marked import KINDS, make_media
from tests.support.signers import studio_files

library = pytest.importorskip("c2pa", reason="C2PA needs the extra c2pa")
CLAIM = Claim(title="a", generated_by="sglat test", facts={"consent": "yes", "empty": ""})


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> keys.Signer:
    return keys.make_signer("Jo", folder=tmp_path_factory.mktemp("keys"))


def signed(folder: Path, name: str, signer: keys.Signer, claim: Claim = CLAIM) -> Path:
    path = make_media(folder, name)
    sign_media(path, claim, signer)
    return path


def manifest_of(path: Path, **options: bytes) -> c2pa.Manifest:
    return read_manifest(path, read_embedded(path), **options)


def active(path: Path) -> dict[str, object]:
    """Return what c2pa-python reads, without any of our code."""
    with library.Reader(path) as reader:
        record = json.loads(reader.json())
    assert record["validation_state"] == "Valid"
    return dict(record["manifests"][record["active_manifest"]])


@pytest.mark.parametrize("name", KINDS)
def test_each_container_holds_a_valid_manifest_and_still_plays(
    tmp_path: Path, signer: keys.Signer, name: str
) -> None:
    path = signed(tmp_path, name, signer)
    (action,) = (a["data"]["actions"][0] for a in active(path)["assertions"] if "act" in a["label"])
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    is_still = name.endswith((".png", ".jpg", ".webp"))
    with VideoReader(path) as reader:
        assert len(list(reader)) == (1 if is_still else 8)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", KINDS)
def test_one_flipped_bit_of_the_pictures_is_found(
    tmp_path: Path, signer: keys.Signer, name: str
) -> None:
    plain = make_media(tmp_path, name).read_bytes()
    path = signed(tmp_path, name, signer)
    data = path.read_bytes()
    place = data.find(plain[len(plain) // 2 :][:24])  # pictures lie in the middle of each
    assert place > 0
    changed = bytearray(data)
    changed[place + 5] ^= 1
    path.write_bytes(changed)
    assert manifest_of(path).state == "broken"


def test_what_is_signed_is_read_back(tmp_path: Path, signer: keys.Signer) -> None:
    when = datetime(2026, 12, 1, 9, tzinfo=UTC)
    claim = Claim(title="a", generated_by="sglat 9", facts={"consent": "ja"}, when=when)
    found = manifest_of(signed(tmp_path, "a.mp4", signer, claim))
    assert (found.state, found.signer, found.issuer) == ("valid", "Jo", "Jo (self-signed)")
    assert found.facts == {
        "generated_by": "sglat 9", "consent": "ja", "time": "2026-12-01T09:00:00Z"
    }  # fmt: skip
    assert found.label.startswith("urn:c2pa:")


def test_each_signature_has_an_id_of_its_own(tmp_path: Path, signer: keys.Signer) -> None:
    labels = {manifest_of(signed(tmp_path, "a.png", signer)).label for _ in range(2)}
    assert len(labels) == 2


def test_a_known_certificate_is_trusted(tmp_path: Path, signer: keys.Signer) -> None:
    path = signed(tmp_path, "a.mp4", signer)
    assert manifest_of(path, trusted_pem=signer.certificates_pem).state == "trusted"
    other = keys.make_signer("Eve", folder=tmp_path / "other")
    assert manifest_of(path, trusted_pem=other.certificates_pem).state == "valid"


def test_a_studios_certificate_signs(tmp_path: Path) -> None:
    studio = keys.load_signer(*studio_files(tmp_path))
    found = manifest_of(signed(tmp_path, "a.mp4", studio))
    assert (found.state, found.signer, found.algorithm) == ("valid", "Studio Nord", "Es256")


def test_a_pasted_face_names_the_video_below_it(tmp_path: Path, signer: keys.Signer) -> None:
    below = signed(tmp_path, "a.mov", signer)
    claim = Claim(title="a", generated_by="sglat", is_composite=True, parent=below)
    found = manifest_of(signed(tmp_path, "a.mp4", signer, claim))
    assert found.actions == ("c2pa.opened", "c2pa.edited")
    assert found.source_types == ("compositeWithTrainedAlgorithmicMedia",)
    assert (found.state, found.ingredients) == ("valid", ("a.mov",))


@pytest.mark.parametrize("name", ["a.mkv", "rubbish.mp4"])
def test_a_video_below_that_cannot_be_read_is_left_out(
    tmp_path: Path, signer: keys.Signer, name: str
) -> None:
    below = tmp_path / name
    if name == "a.mkv":
        make_media(tmp_path, name)
    else:
        below.write_bytes(b"\0\0\0\x10ftypisom" + b"\xff" * 90)
    claim = Claim(title="a", generated_by="sglat", is_composite=True, parent=below)
    found = manifest_of(signed(tmp_path, "a.mp4", signer, claim))
    assert (found.state, found.actions, found.ingredients) == ("valid", ("c2pa.created",), ())


def test_the_manifest_of_the_encoded_video_is_an_ingredient(
    tmp_path: Path, signer: keys.Signer
) -> None:
    source = signed(tmp_path, "a.mov", signer)
    store = read_embedded(source).store
    claim = Claim(title="a", generated_by="sglat", stores=(b"damaged", store, store[:300]))
    path = signed(tmp_path, "a.mp4", signer, claim)
    (ingredient,) = active(path)["ingredients"]
    assert ingredient["relationship"] == "inputTo"
    assert ingredient["active_manifest"] == manifest_of(source).label


def test_a_file_that_cannot_be_signed_stays_as_it_was(tmp_path: Path, signer: keys.Signer) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(SglatError, match="c2pa-refused"):
        sign_media(path, CLAIM, signer)
    assert path.read_bytes() == b"no video"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(SglatError, match=r"no place in a \.mkv"):
        sign_media(make_media(tmp_path, "a.mkv"), CLAIM, signer)


def test_without_the_library_a_manifest_is_not_checked(
    tmp_path: Path, signer: keys.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = signed(tmp_path, "a.png", signer)
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    found = manifest_of(path)
    assert found.state == "unchecked" and "sglat[c2pa]" in found.faults[0]
    with pytest.raises(MissingExtraError):
        sign_media(path, CLAIM, signer)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.gif", "a.jpg"])
def test_damaged_manifests_are_told_and_never_trusted(
    tmp_path: Path, signer: keys.Signer, name: str
) -> None:
    path = signed(tmp_path, name, signer)
    data = path.read_bytes()
    start = data.find(b"jumb")
    chance = random.Random(1)
    states = []
    for _ in range(60):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 4, 40))):
            changed[start + chance.randrange(1500)] = chance.randrange(256)
        path.write_bytes(changed)
        found = manifest_of(path, trusted_pem=signer.certificates_pem)
        assert "\n" not in "".join(found.faults)
        states.append(found.state)
    assert set(states) <= {"broken", "none"}


def test_what_a_manifest_says_is_bounded_and_of_any_type() -> None:
    odd = {"active_manifest": "m", "manifests": {"m": {"assertions": 3, "signature_info": []}}}
    assert c2pa._describe(odd, "Valid") == c2pa.Manifest(state="valid", label="m")
    many = {"label": "c2pa.actions", "data": {"actions": [{"action": "x" * 9999}] * 999}}
    found = c2pa._describe(
        {"active_manifest": "m", "manifests": {"m": {"assertions": [many]}}}, "Invalid"
    )
    assert len(found.actions) == c2pa.MAX_ITEMS
    assert len(found.actions[0]) == c2pa.MAX_SHOWN
    assert c2pa._describe(None, "Valid").label == ""
