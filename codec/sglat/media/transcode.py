"""Sound from one codec to another, sample by sample, for what cannot be copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError

# FFmpeg encoder, sample formats by depth, bits a second a channel (0: lossless)
ENCODERS: Final[dict[str, tuple[str, tuple[str, ...], int]]] = {
    "aac": ("aac", ("fltp",), 80_000),
    "ac3": ("ac3", ("fltp",), 96_000),
    "flac": ("flac", ("s16", "s32"), 0),
    "mp3": ("libmp3lame", ("fltp",), 80_000),
    "opus": ("libopus", ("flt",), 56_000),
    "pcm_s16le": ("pcm_s16le", ("s16",), 0),
    "wavpack": ("wavpack", ("s16p", "s32p", "fltp"), 0),
}
OPUS_RATE: Final = 48_000  # the only rate at which every Opus decoder works
MAX_RATES: Final = {"aac": 96_000, "ac3": 48_000, "mp3": 48_000, "opus": OPUS_RATE}
AC3_RATES: Final = (32_000, 44_100, 48_000)
MAX_CHANNELS: Final = {"ac3": 6, "mp3": 2}
USUAL_LAYOUTS: Final = {
    1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1",
}  # fmt: skip
GAP_SECONDS: Final = 0.05  # of missing time stamps that are filled with silence; shorter is jitter
MAX_GAP_SECONDS: Final = 3600  # of a damaged time stamp, which is not followed
LARGEST_BLOCK: Final = 4096  # samples in a packet of codecs that take any number


class AudioTranscoder:
    """Decodes packets and encodes their samples again.

    Args:
        decoder: an open PyAV audio decoder with the stream's parameters.
        source: what the packets are.
        codec: a key of `ENCODERS`.
        end_seconds: samples from here on are left out, and those before 0, so that sound trimmed
            to a range is exact; None: none.
    """

    def __init__(
        self,
        decoder: Any,
        source: AudioFormat,
        codec: str,
        *,
        end_seconds: Fraction | None = None,
    ) -> None:
        self._decoder, self._source, self._codec = decoder, source, codec
        self._resampler: Any = None
        self._encoder = self._open_encoder(decoder)
        rate = self._encoder.sample_rate
        self._block = self._encoder.frame_size or LARGEST_BLOCK
        self._clock: int | None = None  # sample that follows those in `_waiting`
        self._waiting: list[NDArray[Any]] = []
        self._end = None if end_seconds is None else round(end_seconds * rate)
        self.format = AudioFormat(
            codec=self._encoder.codec.canonical_name,
            time_base=Fraction(1, rate),
            sample_rate=rate,
            channels=self._encoder.layout.nb_channels,
            layout=self._encoder.layout.name,
            extradata=self._encoder.extradata or b"",
            frame_size=self._encoder.frame_size or 0,
        )

    def convert(self, packets: Iterable[AudioPacket]) -> Iterator[AudioPacket]:
        """Yield the packets of the other codec, to the last."""
        for packet in packets:
            yield from self.push(packet)
        yield from self.finish()

    def push(self, packet: AudioPacket) -> list[AudioPacket]:
        """Take one packet; return what is complete so far."""
        coded = av.Packet(packet.data)
        coded.pts, coded.dts, coded.duration = packet.pts, packet.dts, packet.duration
        coded.time_base = self._source.time_base
        try:
            frames = self._decoder.decode(coded)
        except av.error.FFmpegError:
            return []  # a damaged packet is silence
        return self._encoded(frames)

    def finish(self) -> list[AudioPacket]:
        """Return the packets that were still waiting."""
        try:
            made = self._encoded(self._decoder.decode(None))
        except av.error.FFmpegError:
            made = []
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                self._append(frame.to_ndarray())
        made += self._blocks(is_last=True)
        return made + self._records(self._encoder.encode(None))

    def _open_encoder(self, decoder: Any) -> Any:
        name, formats, bits = ENCODERS[self._codec]
        encoder: Any = av.CodecContext.create(name, "w")
        rate = self._source.sample_rate
        if self._codec == "opus":
            rate = OPUS_RATE
        elif self._codec == "ac3" and rate not in AC3_RATES:
            rate = AC3_RATES[-1]
        rate = min(rate, MAX_RATES.get(self._codec, rate))
        channels = self._source.channels
        if channels in USUAL_LAYOUTS and decoder.layout.name not in USUAL_LAYOUTS.values():
            decoder.layout = USUAL_LAYOUTS[channels]  # else "2 channels" of no known place
        layout = decoder.layout
        if channels > MAX_CHANNELS.get(self._codec, 8):
            layout = av.AudioLayout("stereo")
        encoder.sample_rate, encoder.layout = rate, layout
        encoder.format = _sample_format(decoder, formats)
        encoder.time_base = Fraction(1, rate)
        if bits:
            encoder.bit_rate = bits * layout.nb_channels
        encoder.flags |= int(av.codec.context.Flags.global_header)
        try:
            encoder.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError(
                "audio-refused",
                f"cannot make {self._codec} of {self._source.codec} with {rate} Hz and "
                f"{layout.nb_channels} channels: {getattr(error, 'strerror', error)}",
            ) from error
        return encoder

    def _encoded(self, frames: Iterable[Any]) -> list[AudioPacket]:
        for frame in frames:
            self._place(frame)
            if self._resampler is None:
                self._resampler = av.AudioResampler(
                    format=self._encoder.format.name, layout=self._encoder.layout.name,
                    rate=self._encoder.sample_rate,
                )  # fmt: skip
            frame.pts = None  # counted here
            for part in self._resampler.resample(frame):
                self._append(part.to_ndarray())
        return self._blocks(is_last=False)

    def _place(self, frame: Any) -> None:
        """Fill a gap before a decoded frame with silence."""
        rate = self._encoder.sample_rate
        if frame.pts is None:
            self._clock = 0 if self._clock is None else self._clock
            return
        base = Fraction(frame.time_base or self._source.time_base)
        at = round(frame.pts * base * rate)
        if self._clock is None:
            self._clock = at
        gap = at - self._clock
        if GAP_SECONDS * rate < gap < MAX_GAP_SECONDS * rate:
            self._append(self._silence(gap))

    def _silence(self, samples: int) -> NDArray[Any]:
        layout = self._encoder.layout
        kinds = {"s16": np.int16, "s32": np.int32}
        kind = kinds.get(self._encoder.format.name.removesuffix("p"), np.float32)
        if self._encoder.format.is_planar:
            return np.zeros((layout.nb_channels, samples), kind)
        return np.zeros((1, samples * layout.nb_channels), kind)

    def _append(self, samples: NDArray[Any]) -> None:
        """Keep samples that lie in the range; `[channels, N]`, or `[1, N x channels]` if packed."""
        width = 1 if self._encoder.format.is_planar else self._encoder.layout.nb_channels
        count = samples.shape[1] // width
        start = self._clock or 0
        first = min(max(-start, 0), count)
        last = count if self._end is None else min(max(self._end - start, first), count)
        self._clock = start + count
        if last > first:
            if not self._waiting:
                self._next = start + first
            self._waiting.append(samples[:, first * width : last * width])

    def _blocks(self, *, is_last: bool) -> list[AudioPacket]:
        if not self._waiting:
            return []
        width = 1 if self._encoder.format.is_planar else self._encoder.layout.nb_channels
        samples = np.concatenate(self._waiting, axis=1)
        made: list[AudioPacket] = []
        size = self._block * width
        while samples.shape[1] >= size or (is_last and samples.shape[1]):
            made += self._encode(samples[:, :size])
            samples = samples[:, size:]
        self._waiting = [samples] if samples.shape[1] else []
        return made

    def _encode(self, samples: NDArray[Any]) -> list[AudioPacket]:
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format=self._encoder.format.name,
            layout=self._encoder.layout.name,
        )  # fmt: skip
        frame.sample_rate = self._encoder.sample_rate
        frame.pts, frame.time_base = self._next, Fraction(1, frame.sample_rate)
        self._next += frame.samples
        return self._records(self._encoder.encode(frame))

    def _records(self, packets: Iterable[Any]) -> list[AudioPacket]:
        base = self.format.time_base
        made = []
        for packet in packets:
            if packet.size == 0:
                continue
            factor = Fraction(packet.time_base or base) / base
            pts = round((packet.pts or 0) * factor)
            dts = pts if packet.dts is None else round(packet.dts * factor)
            duration = round((packet.duration or 0) * factor)
            made.append(
                AudioPacket(
                    data=bytes(packet), pts=pts, dts=dts, duration=duration, is_key_frame=True
                )
            )
        return made


def _sample_format(decoder: Any, formats: tuple[str, ...]) -> str:
    """Return the least deep of an encoder's formats that holds what a decoder gives."""
    name = decoder.format.name if decoder.format is not None else "s16"
    if name.startswith(("flt", "dbl")):
        return formats[-1]
    return next((f for f in formats if f.startswith(name[:3])), formats[0])
