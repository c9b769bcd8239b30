"""Video of phones, cameras and recorders goes through `sgl-encode`; what was done is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sglat.api import decode_video
from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.cli.encode import app
from sglat.files import output_lock
from sglat.marks.c2pa import Claim, sign_media
from sglat.marks.check import check, to_json
from sglat.marks.keys import make_signer
from sglat.marks.watermark import Watermark
from tests.encoder.test_encode import bundle as bundle  # a fixture
from tests.support.faces import draw_face
from tests.support.pictures import jpeg_with_exif, stored_as
from tests.support.video import write_video

OPTIONS = ("--tuning", "none", "--identity-bytes", "6000", "--no-self-check", "--json", "--quiet")


def pictures(count: int = 5) -> list[np.ndarray]:
    wall = np.full((96, 128, 3), 60, np.uint8)
    return [draw_face(wall, 60 + i % 3, 48, 72) for i in range(count)]


def run(source: Path | str, target: Path, *options: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(source), str(target), *OPTIONS, *options], input=stdin)


def encoded(source: Path | str, target: Path, *options: str, stdin: bytes | None = None) -> Any:
    done = run(source, target, *options, stdin=stdin)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def code_of(done: Result) -> str:
    assert done.exception is not None
    return str(getattr(done.exception, "code", done.exception))


def stored_sound(path: Path) -> tuple[str | None, list[Any]]:
    with open_reader(path) as reader:
        packets = [packet for group in reader.groups() for packet in group.packets]
        packets += reader.trailing_packets
        form = reader.audio_format
        return (None if form is None else form.codec), packets


def test_time_starts_at_zero_whatever_the_container_says(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "in.ts", pictures(), pts=[90000 + i for i in range(5)], audio_codec="aac",
        audio_start_seconds=3600,
    )  # fmt: skip
    encoded(source, tmp_path / "out.sglat")
    with open_reader(tmp_path / "out.sglat") as reader:
        start = reader.header.start_ticks * reader.header.time_base
        group = next(iter(reader.groups()))
        assert reader.audio_format is not None
        sound = group.packets[0].pts * reader.audio_format.time_base
    assert 0 <= start < Fraction(1, 20)
    assert 0 <= sound < Fraction(1, 20)


def test_hdr_is_converted_said_and_stored(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "in.mkv", pictures(), codec="ffv1", pixel_format="yuv420p10le",
        colour=(9, 18, 9),
    )  # fmt: skip
    result = encoded(source, tmp_path / "out.sglat")
    assert any("HDR (HLG, bt2020)" in line for line in result["messages"])
    with open_reader(tmp_path / "out.sglat") as reader:
        assert reader.provenance is not None
        assert "BT.2390" in reader.provenance.note


def test_ordinary_video_has_no_note(bundle: Bundle, tmp_path: Path) -> None:
    result = encoded(write_video(tmp_path / "in.mp4", pictures()), tmp_path / "out.sglat")
    assert result["messages"] == []
    with open_reader(tmp_path / "out.sglat") as reader:
        assert reader.provenance is not None
        assert reader.provenance.note == ""


def test_a_generated_video_keeps_its_marks_through_the_codec(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old marks go as record and ingredient into what is decoded, which gets new ones."""
    pytest.importorskip("c2pa", reason="C2PA needs the extra c2pa")
    monkeypatch.setenv("SGLAT_CONFIG", str(tmp_path))
    signer, old = make_signer("Jo", folder=tmp_path), b"\x01\x02\x03"
    shown = [np.kron(each, np.ones((2, 2, 1), np.uint8)) for each in pictures(64)]
    marked = [Watermark(old).mark_at(each, at / 25) for at, each in enumerate(shown)]
    source = write_video(tmp_path / "in.mp4", marked, options={"crf": "8"})
    sign_media(source, Claim(title="old.mp4", generated_by="sglat"), signer)
    label = check(source).manifest.label
    encoded(source, tmp_path / "a.sglat", "--consent", "ja", "--end", "0.2")
    decode_video(tmp_path / "a.sglat", tmp_path / "out.mp4", bundle=bundle, signer=signer)
    kept, made = check(tmp_path / "a.sglat"), check(tmp_path / "out.mp4")
    assert (kept.verdict, made.verdict) == ("holds", "holds")
    record = to_json(kept)["provenance"]["record"]
    assert record["has_source_manifest"] is True
    assert (record["source_type"], record["source_watermark"]) == ("", old.hex())
    assert made.manifest.ingredients == ("video that was encoded",)
    assert label.encode() in (tmp_path / "out.mp4").read_bytes() and made.manifest.label != label
    facts = made.manifest.facts
    assert (facts["source_watermark"], facts["consent"]) == (old.hex(), "ja")
    assert facts["watermark"] == kept.named_watermark != old.hex()


def test_a_photo_is_a_clip_of_one_frame(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "photo.jpg"
    source.write_bytes(jpeg_with_exif(stored_as(pictures(1)[0], 6), 6))
    assert encoded(source, tmp_path / "out.sglat")["frames"] == 1
    with open_reader(tmp_path / "out.sglat") as reader:
        assert reader.header.source_size == (128, 96)


def test_pcm_is_stored_as_flac_and_said(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", pictures(), codec="ffv1", audio_codec="pcm_s16le")
    result = encoded(source, tmp_path / "out.sglat")
    codec, packets = stored_sound(tmp_path / "out.sglat")
    assert codec == "flac"
    assert sum(p.duration for p in packets) == 48000 // 5
    assert any("kbit/s" in line and "% of the file" in line for line in result["messages"])


@pytest.mark.parametrize(("choice", "codec"), [("opus", "opus"), ("aac", "aac"), ("none", None)])
def test_sound_is_stored_as_chosen(
    bundle: Bundle, tmp_path: Path, choice: str, codec: str | None
) -> None:
    source = write_video(tmp_path / "in.avi", pictures(), codec="ffv1", audio_codec="pcm_s16le")
    encoded(source, tmp_path / "out.sglat", "--audio", choice)
    assert stored_sound(tmp_path / "out.sglat")[0] == codec


def test_a_range_is_encoded_with_its_sound(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mov", pictures(50), audio_codec="pcm_s16le")
    result = encoded(source, tmp_path / "out.sglat", "--start", "0.4", "--end", "0:01")
    assert result["frames"] == 15
    with open_reader(tmp_path / "out.sglat") as reader:
        assert reader.header.start_ticks == 0
    assert sum(p.duration for p in stored_sound(tmp_path / "out.sglat")[1]) == 28800


@pytest.mark.parametrize(("start", "end"), [("9", ""), ("1", "0.5")])
def test_a_range_without_frames_is_refused_at_once(
    bundle: Bundle, tmp_path: Path, start: str, end: str
) -> None:
    source = write_video(tmp_path / "in.mp4", pictures())
    done = run(source, tmp_path / "out.sglat", "--start", start, "--end", end)
    assert code_of(done) == "empty-range"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "tiny"]


def test_a_video_may_come_from_standard_input(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mkv", pictures(), audio_codec="aac")
    encoded(source, tmp_path / "a.sglat")
    encoded("-", tmp_path / "b.sglat", stdin=source.read_bytes())
    assert (tmp_path / "a.sglat").read_bytes() == (tmp_path / "b.sglat").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.sglat", "b.sglat", "in.mkv", "tiny"]


@pytest.mark.parametrize("data", [b"", b"no video at all"])
def test_useless_standard_input_is_named(bundle: Bundle, tmp_path: Path, data: bytes) -> None:
    done = run("-", tmp_path / "out.sglat", stdin=data)
    assert "standard input" in str(done.exception)
    assert ".sglat-stdin" not in str(done.exception)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
def test_the_camera_original_is_never_replaced(bundle: Bundle, tmp_path: Path, link: Any) -> None:
    source = write_video(tmp_path / "one.mp4", pictures())
    content = source.read_bytes()
    target = source
    if link is not None:
        target = tmp_path / "out.sglat"
        link(source, target)
    assert code_of(run(source, target, "--force")) == "same-file"
    assert source.read_bytes() == content


def test_the_name_of_a_video_is_questioned(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures())
    done = run(source, tmp_path / "out.mp4")
    assert code_of(done) == "output-name"
    assert "out.sglat" in str(done.exception)


def test_the_longest_name_is_an_output(bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / f"{'n' * 249}.sglat"
    encoded(write_video(tmp_path / "in.mp4", pictures()), target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", target.name, "tiny"]


def test_a_second_encode_of_one_output_ends_at_once(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures())
    with output_lock(tmp_path / "out.sglat"):
        done = run(source, tmp_path / "out.sglat", "--no-resume")
    assert code_of(done) == "output-busy"
    assert encoded(source, tmp_path / "out.sglat")["frames"] == 5


def test_unknown_choices_are_wrong_usage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sglat.cli.encode", "in.mp4", "out.sglat", "--audio", "loud"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "codec")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "flac" in done.stderr
