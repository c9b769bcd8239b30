"""What `check` makes of marks: verdicts, and what they rest on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sglat.bitstream import edits
from sglat.errors import FormatError, MediaError, UsageError
from sglat.marks import keys
from sglat.marks.c2pa import Claim, sign_media
from sglat.marks.check import check, to_json
from sglat.marks.provenance import sign_in_place
from tests.bitstream.samples import sample_file
from tests.support.marked import make_media, write_generated

pytest.importorskip("c2pa", reason="C2PA needs the extra c2pa")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def signer(folder: Path) -> keys.Signer:
    return keys.make_signer("Jo", folder=folder)


def sglat(path: Path, *, seed: int = 1) -> Path:
    path.write_bytes(sample_file(seed=seed))
    return path


def test_an_unmarked_video_is_unmarked(tmp_path: Path) -> None:
    report = check(make_media(tmp_path, "a.mp4"))
    assert (report.verdict, report.is_generated, report.is_signed) == ("unmarked", False, False)


def test_tags_alone_are_unsigned_marks(tmp_path: Path) -> None:
    report = check(write_generated(tmp_path / "a.mkv"))
    assert (report.verdict, report.is_generated, report.is_signed) == ("holds", True, False)


def test_a_signed_video_holds_until_a_bit_flips(tmp_path: Path, signer: keys.Signer) -> None:
    path = write_generated(tmp_path / "a.mp4")
    sign_media(path, Claim(title="a", generated_by="sglat"), signer)
    assert check(path).verdict == "holds"
    data = bytearray(path.read_bytes())
    data[data.find(b"mdat") + 60] ^= 4
    path.write_bytes(data)
    assert check(path).verdict == "broken"


def test_a_cameras_signature_is_no_mark_of_generated_media(
    tmp_path: Path, signer: keys.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglat.marks import c2pa

    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    monkeypatch.setattr(c2pa, "DIGITAL_SOURCE_TYPE", camera)
    monkeypatch.setattr(c2pa, "ASSERTION", "org.example.camera")
    path = make_media(tmp_path, "a.jpg")
    sign_media(path, Claim(title="a", generated_by="camera"), signer)
    monkeypatch.undo()
    report = check(path)
    assert (report.verdict, report.is_generated, report.is_signed) == ("holds", False, True)


def test_known_signers_are_told_from_others(
    tmp_path: Path, folder: Path, signer: keys.Signer
) -> None:
    path = sglat(tmp_path / "a.sglat")
    sign_in_place(path, signer)
    for trust, is_known in ((keys.load_trust(folder=folder), True), (keys.Trust(), False)):
        report = check(path, trust=trust)
        assert report.verdict == "holds"
        assert to_json(report)["provenance"]["signature"]["is_known"] is is_known


def test_an_edit_after_signing_is_told(tmp_path: Path, signer: keys.Signer) -> None:
    path, out = sglat(tmp_path / "a.sglat"), io.BytesIO()
    sign_in_place(path, signer)
    edits.drop_layers(io.BytesIO(path.read_bytes()), out, keep=1)
    path.write_bytes(out.getvalue())
    report = check(path)
    assert report.verdict == "broken"
    assert report.provenance is not None and report.provenance.signature.state == "holds"


def test_unsigned_and_unmarked_sglat_files_hold(tmp_path: Path) -> None:
    report = check(sglat(tmp_path / "a.sglat"))
    assert (report.verdict, report.is_signed) == ("holds", False)


def test_without_the_library_nothing_is_taken_for_checked(
    tmp_path: Path, signer: keys.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, file = write_generated(tmp_path / "a.mp4"), sglat(tmp_path / "a.sglat")
    sign_media(video, Claim(title="a", generated_by="sglat"), signer)
    sign_in_place(file, signer)
    for name in ("c2pa", "cryptography.exceptions"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert [check(path).verdict for path in (video, file)] == ["unchecked", "unchecked"]


def test_files_that_are_neither_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("not a video at all")
    with pytest.raises(MediaError, match="it is text"):
        check(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="input-missing"):
        check(tmp_path / "none")
    (tmp_path / "a.sglat").write_bytes(sample_file(seed=1)[:-1])
    with pytest.raises(FormatError, match=r"truncated: .*a\.sglat"):
        check(tmp_path / "a.sglat")


def test_a_cut_video_is_told(tmp_path: Path) -> None:
    path = make_media(tmp_path, "fragmented.mp4")
    path.write_bytes(path.read_bytes()[:-40])
    assert "expected a box within the file" in check(path).damage


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_marks_of_a_file_whose_pictures_are_gone_are_told(
    tmp_path: Path, signer: keys.Signer, name: str
) -> None:
    path = make_media(tmp_path, name)
    sign_media(path, Claim(title="a", generated_by="sglat"), signer)
    data = path.read_bytes()
    place = data.find(b"IDAT" if name == "a.png" else b"mdat") + 4
    path.write_bytes(data[:place] + bytes(len(data) - place))
    report = check(path)
    assert (report.verdict, report.watermark) == ("broken", None)
    assert report.manifest.signer == "Jo" or report.manifest.faults
    assert report.damage


def test_frames_before_the_damage_are_searched(tmp_path: Path) -> None:
    path = write_generated(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[:-300])
    report = check(path)
    assert report.watermark is not None
    assert (report.verdict, report.tags.is_synthetic) == ("holds", True)
