"""Sound as it goes into a file: copied, compressed without loss, or made smaller."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.media.audio import AudioReader, StoredSound, stored_codec
from sglat.media.stream_template import open_template
from tests.support.video import moving_square, write_video


def stored(
    path: Path, choice: str = "auto", **span: object
) -> tuple[StoredSound, list[AudioPacket]]:
    with AudioReader(path, **span) as reader:
        sound = StoredSound(reader, choice)
        return sound, list(sound)


def samples_of(form: AudioFormat, packets: list[AudioPacket]) -> np.ndarray:
    """Decode stored packets, `[channels, N]`."""
    with open_template(form, packets[0]) as template:
        decoder = template.streams.audio[0].codec_context
        frames = []
        for stored_packet in packets:
            packet = av.Packet(stored_packet.data)
            packet.pts, packet.time_base = stored_packet.pts, form.time_base
            frames += decoder.decode(packet)
        frames += decoder.decode(None)
    arrays = [frame.to_ndarray() for frame in frames]
    joined = np.concatenate(arrays, axis=1)
    return joined if frames[0].format.is_planar else joined.reshape(-1, form.channels).T


def source_samples(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    joined = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    return joined if frames[0].format.is_planar else joined.reshape(-1, 2).T


def clip(folder: Path, codec: str, suffix: str = ".mkv") -> Path:
    return write_video(
        folder / f"in{suffix}", [moving_square(i) for i in range(25)], audio_codec=codec
    )


@pytest.mark.parametrize(
    ("codec", "suffix", "expected"),
    [
        ("pcm_s16le", ".mkv", "flac"), ("pcm_s16le", ".avi", "flac"), ("pcm_s24le", ".mov", "flac"),
        ("pcm_s16be", ".mov", "flac"), ("pcm_f32le", ".mkv", "wavpack"),
        ("pcm_s32le", ".mkv", "wavpack"), ("pcm_mulaw", ".mov", "flac"), ("pcm_u8", ".avi", "flac"),
    ],
)  # fmt: skip
def test_pcm_is_compressed_without_loss(
    tmp_path: Path, codec: str, suffix: str, expected: str
) -> None:
    path = clip(tmp_path, codec, suffix)
    sound, packets = stored(path)
    assert sound.format is not None
    assert sound.format.codec == expected
    before, after = source_samples(path), samples_of(sound.format, packets)
    if before.dtype == np.uint8:
        before = (before.astype(np.int16) - 128) << 8
    assert np.array_equal(before, after[:, : before.shape[1]])
    assert sum(len(p.data) for p in packets) < path.stat().st_size


@pytest.mark.parametrize("codec", ["aac", "libopus", "ac3", "flac"])
def test_compressed_sound_is_copied(tmp_path: Path, codec: str) -> None:
    path = clip(tmp_path, codec)
    with AudioReader(path) as reader:
        wanted = list(reader)
    assert stored(path)[1] == wanted


@pytest.mark.parametrize(
    ("choice", "codec"), [("opus", "opus"), ("aac", "aac"), ("flac", "flac"), ("copy", "pcm_s16le")]
)
def test_the_codec_may_be_chosen(tmp_path: Path, choice: str, codec: str) -> None:
    sound, packets = stored(clip(tmp_path, "pcm_s16le"), choice)
    assert sound.format is not None
    assert sound.format.codec == codec
    seconds = sum(p.duration for p in packets) * sound.format.time_base
    assert 0.98 < seconds < 1.1


def test_sound_may_be_left_out(tmp_path: Path) -> None:
    sound, packets = stored(clip(tmp_path, "pcm_s16le"), "none")
    assert (sound.format, packets) == (None, [])
    assert "left out" in sound.notes(seconds=1.0, file_bytes=1000)[0]


def test_a_codec_that_no_container_takes_back_is_encoded_anew(tmp_path: Path) -> None:
    path = clip(tmp_path, "adpcm_ima_wav", ".avi")
    sound, packets = stored(path)
    assert sound.format is not None
    assert sound.format.codec == "aac"
    assert packets
    with pytest.raises(MediaError, match="--audio flac"):
        stored(path, "copy")


def test_what_large_sound_costs_is_said(tmp_path: Path) -> None:
    sound, packets = stored(clip(tmp_path, "pcm_s16le"))
    size = sum(len(p.data) for p in packets)
    note = sound.notes(seconds=1.0, file_bytes=2 * size)[0]
    assert "pcm_s16le 1536 kbit/s" in note
    assert "flac" in note and "50 % of the file" in note and "--audio opus" in note


def test_nothing_is_said_of_ordinary_sound(tmp_path: Path) -> None:
    assert stored(clip(tmp_path, "aac"))[0].notes(seconds=1.0, file_bytes=1000) == []


def test_transcoded_sound_of_a_range_is_exact(tmp_path: Path) -> None:
    path = clip(tmp_path, "pcm_s16le", ".mov")  # Matroska's clock counts milliseconds
    span = {"zero_seconds": Fraction(1, 4), "end_seconds": Fraction(3, 4), "is_cut": True}
    sound, packets = stored(path, **span)
    assert sound.format is not None
    after = samples_of(sound.format, packets)
    assert np.array_equal(after, source_samples(path)[:, 12000:36000])
    assert packets[0].pts == 0


@pytest.mark.parametrize(
    ("codec", "expected"), [("ape", "flac"), ("wmav2", "aac"), ("vorbis", "vorbis")]
)
def test_the_automatic_choice(codec: str, expected: str) -> None:
    assert stored_codec(codec) == expected
