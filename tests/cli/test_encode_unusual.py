"""Unusual but usable input goes through the whole codec and gives a sensible result."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.encoder import encode as encode_module
from sglat.encoder.encode import EncodeConfig, EncodeResult, encode
from sglat.media.audio import AudioReader
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import Eyes, Pixels
from tests.support.faces import draw_face
from tests.support.video import set_display_matrix, write_video

CONFIG = EncodeConfig(tune_steps=2, identity_bytes=6_000, self_check=False)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    bundle.__dict__["faces"] = Eyes()
    bundle.__dict__["perceptual"] = Pixels()
    monkeypatch.setattr(encode_module, "load_bundle", lambda name, device: bundle)
    return bundle


def pictures(count: int = 5, *, width: int = 128, height: int = 96) -> list[np.ndarray]:
    wall = np.full((height, width, 3), 60, np.uint8)
    return [draw_face(wall, 60 + i % 3, 48, 72) for i in range(count)]


def encoded(source: Path) -> tuple[EncodeResult, Path]:
    target = source.with_name("out.sglat")
    return encode(source, target, CONFIG), target


def source_size(path: Path) -> tuple[int, int] | None:
    with open_reader(path) as reader:
        return reader.header.source_size


def decoded(path: Path, bundle: Bundle) -> Path:
    target = path.with_suffix(".mp4")
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle)
        write_decoded(decoder, OutputConfig(path=target, encoder="libx264"))
    return target


def times(path: Path) -> list[Fraction]:
    with VideoReader(path) as reader:
        return [frame.pts * reader.time_base for frame in reader]


def first_sound_seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        frame = next(container.decode(audio=0))
        return float(frame.pts * frame.time_base)


def test_odd_sizes(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(
        tmp_path / "in.mkv", pictures(width=129, height=97), codec="ffv1", pixel_format="bgra"
    )
    result, path = encoded(source)
    assert result.frames == 5
    assert source_size(path) == (129, 97)


def test_ten_bits(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(), pixel_format="yuv420p10le")
    assert encoded(source)[0].frames == 5


def test_a_rotated_phone_video(bundle: Bundle, tmp_path: Path) -> None:
    stored = [np.rot90(picture) for picture in pictures()]
    source = write_video(tmp_path / "in.mp4", stored)
    set_display_matrix(source, (0, 1, -1, 0))
    assert source_size(encoded(source)[1]) == (128, 96)


def test_a_variable_frame_rate_comes_back_exactly(bundle: Bundle, tmp_path: Path) -> None:
    stamps = [0, 33, 70, 200, 233]
    source = write_video(tmp_path / "in.mp4", pictures(), time_base=Fraction(1, 1000), pts=stamps)
    _, path = encoded(source)
    assert times(decoded(path, bundle)) == [Fraction(stamp, 1000) for stamp in stamps]


def test_a_rational_frame_rate_comes_back_exactly(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(), time_base=Fraction(1001, 30000))
    _, path = encoded(source)
    assert times(decoded(path, bundle)) == [i * Fraction(1001, 30000) for i in range(5)]


def test_sound_and_picture_stay_together(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(30), audio_codec="aac")
    shown = decoded(encoded(source)[1], bundle)
    with AudioReader(source) as before, AudioReader(shown) as after:
        assert [p.data for p in after] == [p.data for p in before]
    shift = first_sound_seconds(shown) - first_sound_seconds(source)
    shift -= float(times(shown)[0] - times(source)[0])
    assert abs(shift) <= 1 / 25


def test_two_faces_are_reported_and_one_is_encoded(bundle: Bundle, tmp_path: Path) -> None:
    both = [draw_face(picture, 108, 70, 30) for picture in pictures()]
    result, _ = encoded(write_video(tmp_path / "in.mp4", both))
    assert any("2 faces" in line for line in result.messages)


def test_a_file_cut_in_the_middle_is_encoded_as_far_as_it_goes(
    bundle: Bundle, tmp_path: Path
) -> None:
    source = write_video(tmp_path / "in.mkv", pictures(30), codec="ffv1", pixel_format="bgra")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    assert 5 < encoded(source)[0].frames < 30
