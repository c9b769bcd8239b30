"""Sound of a call: Opus out of a file, on the clock of the frames, into files and recordings."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.live.look import Look
from sglat.live.screens import FileScreen
from sglat.live.secure import LiveError
from sglat.live.sound import (
    FRAME_SECONDS,
    MAX_SOUND_BYTES,
    SAMPLE_RATE,
    SoundSource,
    stored_packet,
)
from sglat.marks.marking import MarkChoice, Marker
from tests.live.calls import Call, Mover, on_line, whole

ONSET = 0.3  # seconds of silence before the tone


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 0.8 s of sound, a tone after some silence."""
    path = Path(tmp_path_factory.mktemp("tone")) / "tone.wav"
    times = np.arange(int(0.8 * SAMPLE_RATE)) / SAMPLE_RATE
    samples = np.where(times >= ONSET, np.sin(2 * np.pi * 440 * times) * 12_000, 0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            samples.astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def onset_of(path: Path) -> float:
    """Return when sound becomes loud in a file, in seconds."""
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(axis=0) > 0.1)
            if len(loud):
                return float(frame.time) + int(loud[0]) / frame.sample_rate
    raise AssertionError("no sound was found")


def test_packets_last_20_ms_and_are_small(tone: Path) -> None:
    packets = list(SoundSource(str(tone)).packets())
    assert np.allclose(np.diff([seconds for seconds, _ in packets]), FRAME_SECONDS)
    assert 38 <= len(packets) <= 41
    assert max(len(data) for _, data in packets) <= MAX_SOUND_BYTES
    assert sum(len(data) for _, data in packets) * 8 / 0.8 < 26_000


def test_a_file_without_sound_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LiveError, match="no-sound"):
        SoundSource(str(tmp_path / "none.wav"))


def test_sound_is_recorded_on_the_clock_of_the_frames(
    look: Look, tone: Path, tmp_path: Path
) -> None:
    path = tmp_path / "call.sglat"
    call = Call(look, record=path)
    sender = on_line(
        whole(call, lambda: call.sender(Mover(look, 45), sound=SoundSource(str(tone))))
    )
    with open_reader(path) as reader:
        packets = [p for group in reader.groups() for p in group.packets]
        packets += reader.trailing_packets
        assert reader.audio_format is not None and reader.audio_format.codec == "opus"
    starts = np.array([packet.pts for packet in packets]) / SAMPLE_RATE
    assert len(packets) > 20
    assert abs(starts[0]) < 0.03
    assert np.allclose(np.diff(starts), FRAME_SECONDS, atol=1e-3)
    assert sender.figures.sound_bytes > 0
    assert call.screen.packets[0].pts == packets[0].pts


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_video_file_has_the_sound_in_step(
    look: Look, tone: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    screen = FileScreen(
        path, frame_ticks=3600, marker=Marker(look.shown, MarkChoice()), has_sound=True, force=False
    )
    sound = list(SoundSource(str(tone)).packets())
    for at in range(20):
        while sound and sound[0][0] < (at + 1) / 25:
            seconds, data = sound.pop(0)
            screen.hear(stored_packet(data, round(seconds * 90_000)))
        screen.show(np.full((32, 32, 3), at, np.uint8), at * 3600)
    screen.close()
    assert onset_of(path) == pytest.approx(ONSET, abs=0.02)
    with av.open(str(path)) as file:
        assert file.streams.video[0].average_rate == Fraction(25)
