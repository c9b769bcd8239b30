"""Unusual but usable input goes through `sgl-encode` and the decoder to a sensible result."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle
from sglat.cli.encode import app
from sglat.decoder.decode import Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.media.audio import AudioReader
from sglat.media.reader import VideoReader
from tests.encoder.test_encode import bundle as bundle  # a fixture
from tests.support.faces import draw_face
from tests.support.video import set_display_matrix, write_video

OPTIONS = ("--tune-steps", "2", "--identity-bytes", "6000", "--no-self-check", "--json", "--quiet")


def pictures(count: int = 5, *, width: int = 128, height: int = 96) -> list[np.ndarray]:
    wall = np.full((height, width, 3), 60, np.uint8)
    return [draw_face(wall, 60 + i % 3, 48, 72) for i in range(count)]


def encoded(source: Path, *options: str) -> tuple[dict[str, Any], Path]:
    """Run the command in this process; return what it printed, and the file."""
    target = source.with_name("out.sglat")
    done = CliRunner().invoke(app, [str(source), str(target), *OPTIONS, *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), target


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
    assert result["frames"] == 5
    assert source_size(path) == (129, 97)


def test_ten_bits(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(), pixel_format="yuv420p10le")
    assert encoded(source)[0]["frames"] == 5


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
    assert any("2 faces" in line for line in result["messages"])


def test_a_file_cut_in_the_middle_is_encoded_as_far_as_it_goes(
    bundle: Bundle, tmp_path: Path
) -> None:
    source = write_video(tmp_path / "in.mkv", pictures(30), codec="ffv1", pixel_format="bgra")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    assert 5 < encoded(source)[0]["frames"] < 30


def test_one_frame_is_a_clip(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(1))
    result, path = encoded(source)
    assert (result["frames"], result["seconds"]) == (1, 0.04)
    assert len(times(decoded(path, bundle))) == 1


def test_the_other_of_two_faces_may_be_chosen(bundle: Bundle, tmp_path: Path) -> None:
    both = [draw_face(picture, 108, 70, 30) for picture in pictures()]
    source = write_video(tmp_path / "in.mp4", both)
    places = []
    for face in ("1", "2"):
        with open_reader(encoded(source, "--face", face, "--force")[1]) as reader:
            placement = next(iter(reader.groups())).placement
            assert placement is not None
            places.append(float(placement.dequantize()[0, 0]))
    assert abs(places[0] - 60) < 15
    assert abs(places[1] - 108) < 15


def test_the_printed_record_has_what_a_user_wants_to_know(bundle: Bundle, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(9), audio_codec="aac")
    record, path = encoded(source, "--self-check")
    streams = {"identity", "motion", "placement", "audio", "plate", "container", "total"}
    assert set(record["bytes"]) == streams
    assert record["bytes"]["total"] == path.stat().st_size
    assert {"kbit_per_second_first_view", "kbit_per_second_motion", "bits_per_frame"} <= set(record)
    assert {"track", "align", "invert", "tune", "sweep", "expression", "check"} <= set(
        record["stage_seconds"]
    )
    assert {"psnr_db", "perceptual", "identity", "warnings"} <= set(record["check"])


@pytest.mark.parametrize("target", ["frame", "inverted"])
def test_the_similarity_of_identity_is_plotted(bundle: Bundle, tmp_path: Path, target: str) -> None:
    source = write_video(tmp_path / "in.mp4", pictures(9))
    plot = tmp_path / "similarity.svg"
    encoded(source, "--similarity-plot", str(plot), "--target", target)
    drawing = ElementTree.fromstring(plot.read_text())
    line = drawing.find("{http://www.w3.org/2000/svg}polyline")
    assert line is not None
    assert len(line.attrib["points"].split()) >= 2
