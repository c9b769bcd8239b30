"""Sound of a call: Opus packets of 20 ms out of a file or a microphone, and their format."""

from __future__ import annotations

import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.live.rtp import CLOCK_RATE
from sglat.live.secure import LiveError

SAMPLE_RATE: Final = 48_000
FRAME_SAMPLES: Final = 960  # 20 ms
FRAME_SECONDS: Final = FRAME_SAMPLES / SAMPLE_RATE
TICKS_OF_FRAME: Final = FRAME_SAMPLES * CLOCK_RATE // SAMPLE_RATE
BIT_RATE: Final = 16_000
PRE_SKIP: Final = 312  # samples that libopus puts before the sound at 48 kHz
MAX_SOUND_BYTES: Final = 1275  # of one Opus frame, RFC 6716 section 3.4


def opus_format() -> AudioFormat:
    """Return the format of a call's sound, with the header of RFC 7845 section 5.1."""
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, PRE_SKIP, SAMPLE_RATE, 0, 0)
    return AudioFormat(
        codec="opus",
        time_base=Fraction(1, SAMPLE_RATE),
        sample_rate=SAMPLE_RATE,
        channels=1,
        layout="mono",
        extradata=head,
        frame_size=FRAME_SAMPLES,
    )


def stored_packet(data: bytes, ticks: int) -> AudioPacket:
    """Return a packet as containers and recordings hold it; time in ticks of 1/90000 s."""
    pts = ticks * SAMPLE_RATE // CLOCK_RATE
    return AudioPacket(data=data, pts=pts, dts=pts, duration=FRAME_SAMPLES)


class SoundSource:
    """Encodes the first sound stream of an open container.

    Args:
        name: a file, or the name of a microphone for `format_name`.
        format_name: the system's input device format; None for a file.
        zero_seconds: time 0 by the container's clock.

    Raises:
        LiveError: `no-sound`.
    """

    def __init__(
        self, name: str, format_name: str | None = None, *, zero_seconds: float = 0.0
    ) -> None:
        self.is_live = format_name is not None
        self._zero = zero_seconds
        try:
            self._container = av.open(name, mode="r", format=format_name)
            self._stream = self._container.streams.audio[0]
        except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
            raise LiveError("no-sound", f"expected sound in {name}, found none") from error
        self._encoder: Any = av.CodecContext.create("libopus", "w")
        self._encoder.sample_rate, self._encoder.layout = SAMPLE_RATE, "mono"
        self._encoder.format, self._encoder.bit_rate = "flt", BIT_RATE
        self._encoder.options = {"application": "voip", "frame_duration": "20"}
        self._encoder.open()

    def packets(self) -> Iterator[tuple[float, bytes]]:
        """Yield Opus packets with the time of their first sample in seconds of the stream."""
        resampler = av.AudioResampler(
            format="flt", layout="mono", rate=SAMPLE_RATE, frame_size=FRAME_SAMPLES
        )
        start: float | None = None
        count = 0
        with self._container:
            for frame in self._decoded():
                if start is None:
                    start = float(frame.time or 0.0) - self._zero
                for part in resampler.resample(frame):
                    for packet in self._encoder.encode(part):
                        yield start + count * FRAME_SECONDS, bytes(packet)
                        count += 1

    def _decoded(self) -> Iterator[Any]:
        try:
            yield from self._container.decode(self._stream)
        except av.error.FFmpegError:  # a damaged end is an end
            return


def microphone(name: str) -> SoundSource:
    """Open a microphone by the name that FFmpeg has for it.

    Raises:
        LiveError: `no-sound`.
    """
    kinds = {"linux": "alsa", "darwin": "avfoundation", "win32": "dshow"}
    return SoundSource(name, kinds.get(sys.platform, "alsa"))


class SoundThread:
    """Plays a source at its own rate into a callback.

    Args:
        source: of packets.
        on_packet: called with the seconds since time 0 and the packet.
    """

    def __init__(self, source: SoundSource, on_packet: Callable[[float, bytes], None]) -> None:
        self._source, self._on_packet = source, on_packet
        self._is_over = False
        self._thread: threading.Thread | None = None

    def start(self, zero: float) -> None:
        """Start; time 0 of the source is a monotonic time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(zero,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop soon."""
        self._is_over = True
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self, zero: float) -> None:
        for seconds, data in self._source.packets():
            if self._source.is_live:
                seconds = time.monotonic() - zero - FRAME_SECONDS
            # A packet is complete when its last sample was taken.
            while not self._is_over:
                left = zero + seconds + FRAME_SECONDS - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(left, 0.1))
            if self._is_over:
                return
            if seconds >= 0:
                self._on_packet(seconds, data)


def sound_of(path: Path, zero_seconds: float) -> SoundSource | None:
    """Return the sound of a video file; None if it has none."""
    try:
        return SoundSource(str(path), zero_seconds=zero_seconds)
    except LiveError:
        return None
