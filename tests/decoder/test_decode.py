"""The whole way from a file to frames and videos."""

from __future__ import annotations

import io
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sglat.api import decode
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import Picture
from sglat.bitstream.seek import SeekableFile
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.backdrop import StillBackdrop, open_backdrop
from sglat.decoder.composite import CompositeConfig
from sglat.decoder.decode import DecodeConfig, Decoder, prefetch
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.errors import BundleMismatchError, FormatError, UsageError
from sglat.media.audio import AudioReader
from sglat.media.pictures import DIGITAL_SOURCE_TYPE, encode_png, read_still
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import make_identity, write_file
from tests.support.tolerances import HALF_PRECISION_MEAN_LEVELS
from tests.support.video import moving_square, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


def pictures(path: Path, bundle: Bundle, **config: object) -> np.ndarray:
    frames = decode(path, bundle=bundle, config=DecodeConfig(**config))
    return np.stack([frame.picture for frame in frames])


def write_out(path: Path, bundle: Bundle, target: Path, config: DecodeConfig | None = None,
              **output: object) -> None:  # fmt: skip
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle, config=config)
        write_decoded(decoder, OutputConfig(path=target, encoder="libx264", **output))


def test_every_frame_comes_in_order(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=21)
    frames = list(decode(path, bundle=bundle))
    assert [frame.index for frame in frames] == list(range(21))
    assert frames[0].picture.shape == (16, 16, 3)


def test_a_pipe_is_enough(tmp_path: Path, bundle: Bundle) -> None:
    data = write_file(tmp_path / "a.sglat", bundle).read_bytes()

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            return self.rest.readinto(buffer)

    assert len(list(Decoder(io.BufferedReader(Pipe()), bundle=bundle).frames())) == 20


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_size_changes_nothing(tmp_path: Path, bundle: Bundle, batch: int) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    difference = pictures(path, bundle, batch=batch).astype(int) - pictures(path, bundle, batch=8)
    assert np.abs(difference).max() <= 1


def test_a_range_in_time_is_the_same_frames(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    frames = list(
        decode(path, bundle=bundle, config=DecodeConfig(start_seconds=0.24, end_seconds=0.6))
    )
    whole = list(decode(path, bundle=bundle))
    assert [frame.index for frame in frames] == list(range(6, 15))
    assert np.abs(frames[0].picture.astype(int) - whole[6].picture).max() <= 1


def without_group(path: Path, at: int) -> Path:
    """Damage one motion group of a file."""
    with path.open("rb") as file:
        offset = SeekableFile(file).index[at].offset
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 0x55
    path.write_bytes(data)
    return path


def test_a_later_start_does_not_read_the_groups_before(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=40)
    whole = pictures(path, bundle)
    damaged = without_group(path, 1)
    with pytest.raises(FormatError):
        pictures(damaged, bundle)
    difference = pictures(damaged, bundle, start_seconds=0.76).astype(int) - whole[19:]
    assert np.abs(difference).max() <= 1


def test_a_start_in_a_pipe_reads_from_the_front(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=40)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *place: int) -> int:
            raise OSError("a pipe")

    decoder = Decoder(
        Pipe(path.read_bytes()), bundle=bundle, config=DecodeConfig(start_seconds=1.2)
    )
    assert [frame.index for frame in decoder.frames()] == list(range(30, 40))


def test_a_file_without_its_end_is_read_from_the_front(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=40)
    path.write_bytes(path.read_bytes()[:-40])
    frames = decode(path, bundle=bundle, config=DecodeConfig(start_seconds=1.0, end_seconds=1.2))
    assert [frame.index for frame in frames] == list(range(25, 30))


def test_fewer_layers_show_another_picture(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    assert not np.array_equal(pictures(path, bundle, layers=1), pictures(path, bundle))


def test_another_size_is_another_size(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=2)
    assert pictures(path, bundle, size=40).shape == (2, 40, 40, 3)


def test_half_precision_shows_the_same_person_within_a_level(tmp_path: Path) -> None:
    bundle = load_bundle()
    path = write_file(tmp_path / "a.sglat", bundle, frames=4)
    exact = pictures(path, bundle, half=False)
    difference = pictures(path, bundle, half=True).astype(int) - exact
    assert 0 < np.abs(difference).mean() < HALF_PRECISION_MEAN_LEVELS


def test_swapped_motion_is_carried_over_from_neutral_to_neutral(
    tmp_path: Path, bundle: Bundle
) -> None:
    driver = np.zeros(34, np.float32)
    driver[0] = -4.0
    identity = make_identity(bundle, yaw_degrees=3.0)
    swapped = write_file(tmp_path / "a.sglat", bundle, identity=identity, neutral=driver)
    own = write_file(tmp_path / "b.sglat", bundle, identity=identity)
    relative, absolute = pictures(swapped, bundle), pictures(swapped, bundle, transfer="absolute")
    assert np.array_equal(absolute, pictures(own, bundle))
    assert not np.array_equal(relative, absolute)


def test_a_file_for_another_decoder_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=5)
    path = write_file(tmp_path / "a.sglat", other)
    with pytest.raises(BundleMismatchError, match="wrong-decoder"):
        list(decode(path, bundle=bundle))


def test_a_cut_file_gives_its_frames_and_then_an_error(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    path.write_bytes(path.read_bytes()[:-120])
    frames = decode(path, bundle=bundle)
    assert next(frames).index == 0
    with pytest.raises(FormatError):
        list(frames)


def test_a_cut_file_leaves_no_video_behind(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    path.write_bytes(path.read_bytes()[:-120])
    with pytest.raises(FormatError):
        write_out(path, bundle, tmp_path / "a.mp4")
    assert [item.name for item in tmp_path.iterdir()] == ["a.sglat"]


def test_an_empty_range_is_one_clear_line(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    with pytest.raises(UsageError, match="empty-range"):
        write_out(path, bundle, tmp_path / "a.mp4", DecodeConfig(start_seconds=50.0))


def test_variable_time_stamps_reach_the_video_exactly(tmp_path: Path, bundle: Bundle) -> None:
    stamps = [0, 33, 34, 90, 200, 201, 1000]
    path = write_file(
        tmp_path / "a.sglat", bundle, frames=7, pts=stamps, time_base=Fraction(1, 1000)
    )
    write_out(path, bundle, tmp_path / "a.mp4")
    with VideoReader(tmp_path / "a.mp4") as reader:
        times = [frame.pts * reader.time_base for frame in reader]
    assert times == [Fraction(stamp, 1000) for stamp in stamps]


def with_sound(
    folder: Path, bundle: Bundle, *, is_interleaved: bool = False
) -> tuple[Path, list[bytes]]:
    source = write_video(
        folder / "in.mp4", [moving_square(i) for i in range(50)], audio_codec="aac"
    )
    with AudioReader(source) as reader:
        assert reader.format is not None
        audio = reader.format, list(reader)
    path = write_file(
        folder / "a.sglat", bundle, frames=50, audio=audio, is_interleaved=is_interleaved
    )
    return path, [packet.data for packet in audio[1]]


def test_sound_comes_back_bit_for_bit(tmp_path: Path, bundle: Bundle) -> None:
    path, sent = with_sound(tmp_path, bundle)
    write_out(path, bundle, tmp_path / "a.mp4")
    with AudioReader(tmp_path / "a.mp4") as reader:
        assert [packet.data for packet in reader] == sent


@pytest.mark.parametrize("is_interleaved", [False, True])
def test_a_range_keeps_its_own_sound_in_step(
    tmp_path: Path, bundle: Bundle, is_interleaved: bool
) -> None:
    path, sent = with_sound(tmp_path, bundle, is_interleaved=is_interleaved)
    config = DecodeConfig(start_seconds=0.8, end_seconds=1.6)
    write_out(path, bundle, tmp_path / "a.mp4", config)
    with AudioReader(tmp_path / "a.mp4") as reader:
        assert reader.format is not None
        packets, base = list(reader), reader.format.time_base
    first = sent.index(packets[0].data)
    original_seconds = (first - 1) * 1024 / 48000  # AAC: one packet of priming
    assert abs(float(packets[0].pts * base) - (original_seconds - 0.8)) < 0.001
    assert float(packets[-1].pts * base) < 0.8 + 1024 / 48000
    assert float(packets[0].pts * base) <= 0
    assert float(packets[-1].pts * base) > 0.8 - 2 * 1024 / 48000


def test_the_video_says_that_it_is_generated(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=3, consent="I agree")
    write_out(path, bundle, tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        marks = container.metadata
    assert marks["digitalSourceType"] == DIGITAL_SOURCE_TYPE
    assert marks["sglat:consent"] == "I agree"


def test_the_plate_makes_a_full_frame(tmp_path: Path, bundle: Bundle) -> None:
    plate = Picture(media_type="image/png", data=encode_png(np.full((48, 64, 3), 90, np.uint8)))
    path = write_file(tmp_path / "a.sglat", bundle, frames=3, plate=plate)
    write_out(path, bundle, tmp_path / "full.mp4")
    write_out(path, bundle, tmp_path / "crop.mp4", crop_only=True)
    with VideoReader(tmp_path / "full.mp4") as full, VideoReader(tmp_path / "crop.mp4") as crop:
        assert (full.info.width, full.info.height) == (64, 48)
        assert (crop.info.width, crop.info.height) == (16, 16)


class SkinEverywhere:
    """A face analysis that sees skin in every pixel."""

    def parse(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.eye(19)[1].view(1, 19, 1, 1).expand(len(crops), 19, *crops.shape[2:])


@pytest.mark.parametrize("kind", ["video", "picture"])
def test_the_face_goes_onto_a_video_or_a_picture(tmp_path: Path, bundle: Bundle, kind: str) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=5)
    ground = [moving_square(i, width=128, height=96) for i in range(3)]
    if kind == "video":
        onto = write_video(tmp_path / "onto.mp4", ground)
    else:
        onto = tmp_path / "onto.png"
        onto.write_bytes(encode_png(ground[0]))
    write_out(path, bundle, tmp_path / "a.mp4", onto=onto)
    with VideoReader(tmp_path / "a.mp4") as reader:
        shown = [frame.picture for frame in reader]
    assert len(shown) == 5 and shown[0].shape == (96, 128, 3)
    change = np.abs(shown[0].astype(int) - ground[0])
    assert change[30:60, 50:75].mean() > 2 * change[:, 110:].mean()


def test_only_what_is_generated_of_a_full_frame_is_marked(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=3)
    ground = moving_square(0, width=256, height=192)
    onto = tmp_path / "onto.png"
    onto.write_bytes(encode_png(ground))
    config: dict[str, object] = {
        "form": "png",
        "onto": onto,
        "composite": CompositeConfig(mask="crop"),
    }
    write_out(path, bundle, tmp_path / "marked", **config)
    write_out(path, bundle, tmp_path / "plain", has_watermark=False, **config)
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle)
        frames = list(decoder.frames(open_backdrop(onto), composite=config["composite"]))
    for number, frame in enumerate(frames):
        marked, plain = (
            read_still(tmp_path / name / f"{number:05d}.png") for name in ("marked", "plain")
        )
        assert frame.generated is not None
        outside = frame.generated == 0
        assert outside.mean() > 0.3
        assert np.array_equal(marked[outside], ground[outside])
        inside = frame.generated > 0.5
        assert (marked[inside] != plain[inside]).any(axis=-1).mean() > 0.2


def test_a_backdrop_without_placement_is_one_clear_line(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, source_size=None)
    backdrop = StillBackdrop(np.zeros((48, 64, 3), np.uint8), has_face=False)
    with path.open("rb") as file, pytest.raises(UsageError, match="no-placement"):
        list(Decoder(file, bundle=bundle).frames(backdrop))


def test_png_frames_are_exact(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle, frames=3)
    write_out(path, bundle, tmp_path / "frames", form="png", has_watermark=False)
    with VideoReader(tmp_path / "frames" / "00002.png") as reader:
        shown = next(iter(reader)).picture
    assert np.array_equal(shown, pictures(path, bundle)[2])


def test_reading_ahead_gives_the_same_items() -> None:
    assert list(prefetch(iter(range(100)), 3)) == list(range(100))


def test_reading_ahead_passes_errors_on() -> None:
    def broken() -> object:
        yield 1
        raise UsageError("x", "y")

    items = prefetch(broken(), 2)
    assert next(items) == 1
    with pytest.raises(UsageError):
        next(items)


def test_reading_ahead_ends_its_thread_when_left() -> None:
    before = threading.active_count()
    items = prefetch(iter(range(1000)), 2)
    next(items)
    items.close()
    assert threading.active_count() == before


def test_the_reader_leaves_nothing_unread(tmp_path: Path, bundle: Bundle) -> None:
    path, _ = with_sound(tmp_path, bundle)
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle)
        with torch.inference_mode():
            list(decoder.frames())
        assert decoder.reader.end is not None
    with path.open("rb") as file:
        assert Reader(file).header.frame_count == 50


def test_more_layers_than_there_are_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    path = write_file(tmp_path / "a.sglat", bundle)
    with path.open("rb") as file, pytest.raises(UsageError, match="bad-layers: expected at most 2"):
        Decoder(file, bundle=bundle, config=DecodeConfig(layers=9))
