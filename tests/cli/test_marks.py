"""`sgl-marks` from the outside, and what the other commands sign."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.marks import keys
from sglat.marks.embedded import read_embedded
from sglat.marks.provenance import read_provenance, source_marks
from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import run_here
from tests.support.files import write_file
from tests.support.marked import make_media, write_generated
from tests.support.signers import studio_files

pytest.importorskip("c2pa", reason="C2PA needs the extra c2pa")
Capture = pytest.CaptureFixture[bytes]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of keys, still empty."""
    folder = tmp_path / "config"
    monkeypatch.setenv("SGLAT_CONFIG", str(folder))
    return folder


@pytest.fixture
def source(tmp_path: Path, bundle: Bundle) -> Path:
    return write_file(tmp_path / "in.sglat", bundle, frames=3)


def marks(capture: Capture, *arguments: object) -> tuple[int, str, str]:
    done = run_here(capture, "marks", *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def decode(capture: Capture, bundle: Bundle, *arguments: object) -> CompletedProcess[bytes]:
    common = "--bundle", bundle.folder, "--device", "cpu", "--quiet"
    return run_here(capture, "decode", *arguments, *common)


def test_init_makes_a_key_and_says_what_it_is_worth(capfdbinary: Capture, config: Path) -> None:
    status, _, told = marks(capfdbinary, "init", "Jo Doe")
    assert status == 0
    assert "signs as Jo Doe (self-signed)" in told and "not whose it is" in told
    assert (config / keys.KEY_NAME).is_file()
    status, _, told = marks(capfdbinary, "init", "Jo Doe")
    assert status == 2 and told.startswith("error: output-exists") and told.count("\n") == 1


def test_a_decoded_video_is_signed_once_there_is_a_key(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    assert decode(capfdbinary, bundle, source, tmp_path / "plain.mp4").returncode == 0
    assert read_embedded(tmp_path / "plain.mp4").store == b""
    keys.make_signer("Jo", folder=config)
    done = decode(capfdbinary, bundle, source, tmp_path / "a.mp4")
    assert b"signed by Jo (self-signed) (C2PA)" in done.stderr
    status, shown, _ = marks(capfdbinary, "check", tmp_path / "a.mp4", "--json")
    report = json.loads(shown)
    assert (status, report["verdict"], report["c2pa"]["state"]) == (0, "holds", "trusted")
    facts = report["c2pa"]["facts"]
    with open_reader(source) as reader:
        reader.read_motion()
    assert reader.end is not None and reader.identity_sha256 is not None
    assert facts["motion_sha256"] == reader.end.motion_sha256.hex()
    assert facts["identity_sha256"] == reader.identity_sha256.hex()


def test_every_picture_of_a_folder_is_signed(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    keys.make_signer("Jo", folder=config)
    decode(capfdbinary, bundle, source, tmp_path / "frames", "--png")
    pictures = sorted((tmp_path / "frames").iterdir())
    assert [p.name for p in pictures] == ["00000.png", "00001.png", "00002.png"]
    assert {marks(capfdbinary, "check", path)[0] for path in pictures} == {0}


def test_a_face_pasted_into_a_video_is_a_composite(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    keys.make_signer("Jo", folder=config)
    below = make_media(tmp_path, "a.mov")
    out = tmp_path / "a.mp4"
    done = decode(capfdbinary, bundle, source, out, "--onto", below, "--track", "own")
    assert done.returncode == 0, done.stderr
    report = json.loads(marks(capfdbinary, "check", out, "--json")[1])
    assert report["c2pa"]["ingredients"] == ["a.mov"]
    assert report["c2pa"]["source_types"] == ["compositeWithTrainedAlgorithmicMedia"]
    assert report["tags"]["source_types"] == ["compositeWithTrainedAlgorithmicMedia"]


def test_containers_without_a_place_carry_tags_alone(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    keys.make_signer("Jo", folder=config)
    done = decode(capfdbinary, bundle, source, tmp_path / "a.mkv")
    assert b"not signed: C2PA has no place in a .mkv file" in done.stderr
    status, shown, _ = marks(capfdbinary, "check", tmp_path / "a.mkv")
    assert status == 0 and "nothing is signed" in shown
    assert decode(capfdbinary, bundle, source, "-", "--sign").returncode == 2


def test_a_studio_signs_with_its_own_certificate(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    certificate, key = studio_files(tmp_path)
    given = "--sign-cert", certificate, "--sign-key", key
    decode(capfdbinary, bundle, source, tmp_path / "a.mp4", *given)
    status, shown, _ = marks(capfdbinary, "check", tmp_path / "a.mp4", "--trust", certificate)
    assert status == 0 and "signed by Studio Nord, whose certificate you know: holds" in shown
    assert (
        b"contradicts"
        in decode(capfdbinary, bundle, source, tmp_path / "b.mp4", "--no-sign", *given).stderr
    )


@pytest.mark.parametrize("fault", ["none", "open", "other"])
def test_a_key_that_cannot_be_used_stops_before_any_work(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path, fault: str
) -> None:
    if fault != "none":
        keys.make_signer("Jo", folder=config)
    if fault == "open":
        (config / keys.KEY_NAME).chmod(0o644)
    if fault == "other":
        (config / keys.CERTIFICATE_NAME).write_bytes(studio_files(tmp_path)[0].read_bytes())
    done = decode(capfdbinary, bundle, source, tmp_path / "a.mp4", "--sign")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert not (tmp_path / "a.mp4").exists()


FAULTS: dict[str, tuple[dict[str, timedelta], bytes]] = {
    "expired": ({"last": timedelta(hours=-1)}, b"has expired"),
    "early": ({"first": timedelta(days=1)}, b"is not valid yet"),
    "open": ({}, b"key-open"),
    "cut": ({}, b"expected a private key in PEM"),
    "swapped": ({}, b"found none"),
}


@pytest.mark.parametrize("command", ["decode", "swap", "live"])
@pytest.mark.parametrize("fault", FAULTS)
def test_certificates_and_keys_with_faults_are_one_line_everywhere(
    capfdbinary: Capture, config: Path, tmp_path: Path, source: Path, command: str, fault: str
) -> None:
    changes, words = FAULTS[fault]
    certificate, key = studio_files(tmp_path, **changes)  # type: ignore[arg-type]
    if fault == "open":
        key.chmod(0o640)
    if fault == "cut":
        key.write_bytes(key.read_bytes()[:80])
    if fault == "swapped":
        certificate, key = key, certificate
        key.chmod(0o600)
    out = tmp_path / ("out.sglat" if command == "swap" else "out.mp4")
    arguments: dict[str, tuple[object, ...]] = {
        "decode": (source, out),
        "swap": ("--motion", source, out),
        "live": ("receive", out, "--passphrase", "correct horse"),
    }
    pair = "--sign-cert", certificate, "--sign-key", key
    done = run_here(capfdbinary, command, *arguments[command], *pair)
    assert done.returncode == 2 and words in done.stderr
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert not out.exists()


def test_swap_signs_keeps_both_origins_and_warns_of_missing_consent(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle
) -> None:
    keys.make_signer("Jo", folder=config)
    motion = write_file(tmp_path / "m.sglat", bundle, frames=3)
    look = write_file(tmp_path / "l.sglat", bundle, frames=3, consent="")
    out = tmp_path / "out.sglat"
    done = run_here(capfdbinary, "swap", "--motion", motion, "--identity", look, out)
    assert done.returncode == 0, done.stderr
    assert b"warning: no consent statement of the person shown" in done.stderr
    assert b"signed by Jo (self-signed)" in done.stderr
    status, shown, _ = marks(capfdbinary, "check", out)
    assert status == 0 and "motion from" in shown and "without a consent statement" in shown


def test_swap_tells_whose_signature_an_edit_ends(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle
) -> None:
    keys.make_signer("Jo", folder=config)
    path, out = write_file(tmp_path / "m.sglat", bundle, frames=9), tmp_path / "out.sglat"
    run_here(capfdbinary, "swap", "--motion", path, tmp_path / "s.sglat")
    trim = "--motion", tmp_path / "s.sglat", "--trim", "0:0.1", out
    done = run_here(capfdbinary, "swap", *trim, "--no-sign")
    assert b"the signature of Jo (self-signed) is for the file before this edit" in done.stderr
    status, shown, _ = marks(capfdbinary, "check", out)
    assert status == 4 and "BUT NOT FOR THIS FILE" in shown
    assert run_here(capfdbinary, "swap", *trim, "--force").returncode == 0
    assert marks(capfdbinary, "check", out)[0] == 0


def test_marks_of_a_source_go_through_a_file_into_the_next_video(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle
) -> None:
    keys.make_signer("Jo", folder=config)
    first = write_file(tmp_path / "1.sglat", bundle, frames=3)
    decode(capfdbinary, bundle, first, tmp_path / "1.mp4")
    kept = source_marks(tmp_path / "1.mp4")
    assert kept["source_type"] == "trainedAlgorithmicMedia"
    second = write_file(tmp_path / "2.sglat", bundle, frames=3, provenance_extra=kept)
    with second.open("rb") as file:
        assert read_provenance(file).record is not None
    decode(capfdbinary, bundle, second, tmp_path / "2.mp4")
    one, two = (
        json.loads(marks(capfdbinary, "check", tmp_path / name, "--json")[1])
        for name in ("1.mp4", "2.mp4")
    )
    assert two["verdict"] == "holds"
    assert two["c2pa"]["ingredients"] == ["video that was encoded"]
    assert two["c2pa"]["label"] != one["c2pa"]["label"]
    assert one["c2pa"]["label"].encode() in (tmp_path / "2.mp4").read_bytes()


def test_a_swap_asks_decoders_for_a_label(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle
) -> None:
    keys.make_signer("Jo", folder=config)
    motion = write_file(tmp_path / "m.sglat", bundle, frames=3)
    look = write_file(tmp_path / "l.sglat", bundle, frames=3, seed=1)
    both = "--motion", motion, "--identity", look
    done = run_here(capfdbinary, "swap", *both, tmp_path / "a.sglat", "--label")
    assert b"label: AI-generated" in done.stderr
    run_here(capfdbinary, "swap", *both, tmp_path / "b.sglat")
    for name, label in (("a", "AI-generated"), ("b", "")):
        path = tmp_path / f"{name}.sglat"
        assert marks(capfdbinary, "check", path)[0] == 0
        decode(capfdbinary, bundle, path, tmp_path / f"{name}.mp4", "--size", 128)
        report = json.loads(marks(capfdbinary, "check", tmp_path / f"{name}.mp4", "--json")[1])
        assert report["tags"]["label"] == report["c2pa"]["facts"].get("label", "") == label
    refused = decode(capfdbinary, bundle, tmp_path / "a.sglat", tmp_path / "c.mp4", "--no-label")
    assert refused.returncode == 2 and b"--i-will-mark-it-myself" in refused.stderr
    word = "--no-label", "--i-will-mark-it-myself"
    decode(capfdbinary, bundle, tmp_path / "a.sglat", tmp_path / "c.mkv", *word)
    shown = marks(capfdbinary, "check", tmp_path / "c.mkv")[1]
    assert "label" in shown and "left out on the user's word" in shown


def test_a_label_outlives_further_edits_and_signatures(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle
) -> None:
    keys.make_signer("Jo", folder=config)
    a, b, c, d, e = (tmp_path / f"{name}.sglat" for name in "abcde")
    write_file(a, bundle, frames=9)
    swap = lambda *arguments: run_here(capfdbinary, "swap", "--motion", *arguments)  # noqa: E731
    swap(a, b, "--label-text", "KI")
    swap(b, c, "--trim", "0:0.2")
    swap(c, "--identity", a, d)
    swap(d, e, "--no-label", "--i-will-mark-it-myself")
    labels = []
    for path in (a, b, c, d, e):
        status, shown, _ = marks(capfdbinary, "check", path, "--json")
        assert status == 0
        labels.append(json.loads(shown)["provenance"]["record"]["label"])
    assert labels == ["", "KI", "KI", "KI", ""]
    origins = json.loads(marks(capfdbinary, "check", e, "--json")[1])["provenance"]["origins"]
    assert {origin["role"] for origin in origins} == {"look", "motion"}


def test_the_watermark_that_a_file_names_is_told_from_the_one_found(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle
) -> None:
    source = write_file(tmp_path / "in.sglat", bundle, frames=100, most_motion=0)
    path = tmp_path / "a.mkv"
    decode(capfdbinary, bundle, source, path, "--size", 128, "--crf", 18)
    of_file = json.loads(marks(capfdbinary, "check", source, "--json")[1])["watermark"]
    found = json.loads(marks(capfdbinary, "check", path, "--json")[1])["watermark"]
    assert found["id"] == found["named"] == of_file["named"]
    assert found["is_named"] is True
    path.write_bytes(path.read_bytes().replace(of_file["named"].encode(), b"000000"))
    status, shown, _ = marks(capfdbinary, "check", path)
    assert status == 0 and "THE FILE NAMES ANOTHER: 000000" in shown


@pytest.mark.parametrize(("name", "status"), [("a.mp4", 3), ("a.mkv", 0), ("a.txt", 1)])
def test_the_status_tells_the_result(
    capfdbinary: Capture, tmp_path: Path, name: str, status: int
) -> None:
    path = tmp_path / name
    if name == "a.txt":
        path.write_text("no video")
    else:
        write_generated(path, is_marked=name == "a.mkv")
    found, shown, told = marks(capfdbinary, "check", path)
    assert found == status
    assert (shown == "") == (status == 1)
    assert told.count("\n") == (status == 1)


LONELY = """
import sys
for name in ("torch", "cv2", "c2pa", "cryptography"):
    sys.modules[name] = None
def refuse(event, arguments):
    if event.startswith("socket."):
        raise AssertionError("a network was asked for: " + event)
sys.addaudithook(refuse)
from sglat.cli.marks import main
main()
"""


def test_a_check_needs_no_network_no_bundle_and_no_extras(
    capfdbinary: Capture, config: Path, tmp_path: Path, bundle: Bundle, source: Path
) -> None:
    keys.make_signer("Jo", folder=config)
    decode(capfdbinary, bundle, source, tmp_path / "a.mp4")
    run_here(capfdbinary, "swap", "--motion", source, tmp_path / "a.sglat")
    (tmp_path / "home").mkdir(mode=0o500)
    environment = os.environ | {"SGLAT_HOME": str(tmp_path / "home"), "SGLAT_CONFIG": "/nowhere"}
    for name in ("a.mp4", "a.sglat"):
        done = run(
            [sys.executable, "-c", LONELY, "check", str(tmp_path / name)],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (5, "")
        assert "not checked" in done.stdout and "sglat[c2pa]" in done.stdout


def test_what_files_say_reaches_the_terminal_escaped(capfdbinary: Capture, tmp_path: Path) -> None:
    path = write_generated(tmp_path / "a.mkv", consent="\x1b[2Jyes")
    shown = marks(capfdbinary, "check", path)[1]
    assert "\x1b" not in shown
