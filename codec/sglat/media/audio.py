"""Audio in: compressed packets copied bit for bit; other sound is compressed without loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import av

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.files import Closable
from sglat.media.reader import VideoReader, first_sound_seconds, open_container
from sglat.media.stream_template import CODEC_IDS
from sglat.media.transcode import AudioTranscoder

SoundChoice = Literal["auto", "copy", "flac", "opus", "aac", "none"]

DEEP_PCM: Final = ("pcm_f", "pcm_s32", "pcm_s64", "pcm_u32")  # FLAC ends at 24 bits
LOSSLESS: Final = frozenset(
    {"alac", "ape", "flac", "mlp", "mp4als", "ralf", "shorten", "tak", "truehd", "tta", "wavpack",
     "wmalossless"}
)  # fmt: skip
MAX_EXTRADATA: Final = 1 << 16  # Vorbis set-up headers reach some kilobytes


class AudioReader(Closable):
    """The first audio stream of a file as packets.

    `format` is None when the file has no sound. Packets come in file order, one at a time.

    Args:
        path: the file.
        zero_seconds: time 0 by the container's clock, as `VideoReader` found it.
        end_seconds: packets from here on are left out, by the same clock; None: none.
        is_cut: packets that end before time 0 are left out; without a range they prime the decoder.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        zero_seconds: Fraction = Fraction(0),
        end_seconds: Fraction | None = None,
        is_cut: bool = False,
    ) -> None:
        self.path = Path(path)
        self._zero_seconds, self._end_seconds, self._is_cut = zero_seconds, end_seconds, is_cut
        self._container = open_container(self.path)
        streams = [s for s in self._container.streams.audio if s.codec_context is not None]
        self._stream = streams[0] if streams else None
        for stream in self._container.streams:
            if stream is not self._stream:
                stream.discard = av.stream.Discard.all  # not even parsed: the pass is quick
        self.format = None if self._stream is None else _describe(self._stream)
        self.start_seconds = first_sound_seconds(self._container)
        """When sound begins by the container's clock; None without sound, or if unknown."""

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    @property
    def decoder(self) -> Any:
        """The PyAV decoder of the stream."""
        assert self._stream is not None
        return self._stream.codec_context

    @property
    def range_seconds(self) -> Fraction | None:
        """Length of the range from time 0; None without an end."""
        return None if self._end_seconds is None else self._end_seconds - self._zero_seconds

    def __iter__(self) -> Iterator[AudioPacket]:
        """Yield every packet once; a damaged tail ends the stream."""
        if self._stream is None:
            return
        clock = 0
        base = Fraction(self._stream.time_base)
        zero = round(self._zero_seconds / base)
        for packet in _until_damaged(self._container.demux(self._stream)):
            if packet.size == 0:  # the end marker of the demuxer
                continue
            duration = int(packet.duration or 0)
            dts = packet.dts if packet.dts is not None else packet.pts
            dts = clock if dts is None else int(dts)
            clock = dts + duration
            pts = dts if packet.pts is None else int(packet.pts)
            if self._is_cut and pts + duration <= zero:
                continue
            if self._end_seconds is not None and pts * base >= self._end_seconds:
                return
            yield AudioPacket(
                data=bytes(packet),
                pts=pts - zero,
                dts=dts - zero,
                duration=duration,
                is_key_frame=bool(packet.is_keyframe),
            )


def open_sound(path: Path) -> AudioReader:
    """Open the sound of a video or audio file, with time 0 where reading the file puts it.

    Raises:
        UsageError: no such file. MediaError: unreadable, or without sound.
    """
    zero = Fraction(0)
    with AudioReader(path) as probe:
        if probe.format is None:
            raise MediaError("no-sound", f"expected sound, {path} has none")
        if probe.start_seconds is not None:
            zero = probe.start_seconds
    try:
        with VideoReader(path) as video:
            zero = video.zero_seconds
    except MediaError as error:
        if error.code not in ("no-video", "no-frames", "no-decoder"):
            raise
    return AudioReader(path, zero_seconds=zero)


class StoredSound:
    """Sound as it goes into a `.sglat` file: that of the source, from its first packet on, as
    chosen."""

    def __init__(self, reader: AudioReader, choice: SoundChoice = "auto") -> None:
        self._reader, self._source = reader, reader.format
        self._read_bytes = self._stored_bytes = 0
        self._transcoder: AudioTranscoder | None = None
        self.format: AudioFormat | None = None if choice == "none" else reader.format
        if self.format is None or self._source is None:
            return
        codec = stored_codec(self._source.codec, choice)
        if codec != self._source.codec:
            self._transcoder = AudioTranscoder(
                reader.decoder, self._source, codec, end_seconds=reader.range_seconds
            )
            self.format = self._transcoder.format

    def __iter__(self) -> Iterator[AudioPacket]:
        """Yield the packets to store."""
        if self.format is None:
            return
        packets = self._counted(self._reader)
        for packet in packets if self._transcoder is None else self._transcoder.convert(packets):
            self._stored_bytes += len(packet.data)
            yield packet

    def notes(self, *, seconds: float, file_bytes: int) -> list[str]:
        """Return what a user should know once all is written, by the length of the clip and the
        size of the finished file; nothing for sound that was copied."""
        if self._source is None:
            return []
        if self.format is None:
            return [f"sound left out: {self._source.codec}"]
        is_large = is_lossless(self.format.codec)
        if self._transcoder is None and not is_large:
            return []
        rate = 8 / 1000 / max(seconds, 1e-9)
        share = 100 * self._stored_bytes / max(file_bytes, 1)
        line = f"sound: {self._source.codec} {self._read_bytes * rate:.0f} kbit/s"
        if self._transcoder is not None:
            line += f", stored as {self.format.codec} {self._stored_bytes * rate:.0f} kbit/s"
        line += f", {share:.0f} % of the file"
        return [line + ("; --audio opus, aac or none makes it smaller" if is_large else "")]

    def _counted(self, packets: Iterable[AudioPacket]) -> Iterator[AudioPacket]:
        for packet in packets:
            self._read_bytes += len(packet.data)
            yield packet


def stored_codec(codec: str, choice: SoundChoice = "auto") -> str:
    """Return the codec in which sound is stored.

    With "auto" compressed sound is copied, PCM is compressed without loss, and a codec that could
    not be written into any container again becomes FLAC if it is lossless, else AAC.
    """
    if choice == "copy":
        if codec not in CODEC_IDS:
            raise MediaError(
                "audio-codec", f"{codec} sound cannot be copied; use --audio flac, opus or aac"
            )
        return codec
    if choice not in ("auto", "none"):
        return choice
    if codec.startswith("pcm_"):
        return "wavpack" if codec.startswith(DEEP_PCM) else "flac"
    if codec in CODEC_IDS:
        return codec
    return "flac" if is_lossless(codec) else "aac"


def is_lossless(codec: str) -> bool:
    """Whether a codec, by FFmpeg's name, loses nothing."""
    return codec.startswith("pcm_") or codec in LOSSLESS


def _until_damaged(packets: Iterator[Any]) -> Iterator[Any]:
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.error.FFmpegError):
            return


def _describe(stream: Any) -> AudioFormat:
    context = stream.codec_context
    extradata = context.extradata or b""
    if len(extradata) > MAX_EXTRADATA:
        raise MediaError(
            "audio-header", f"at most {MAX_EXTRADATA} bytes of codec set-up, found {len(extradata)}"
        )
    return AudioFormat(
        codec=context.codec.canonical_name,
        time_base=Fraction(stream.time_base),
        sample_rate=context.sample_rate,
        channels=context.channels,
        layout=context.layout.name,
        extradata=extradata,
        frame_size=context.frame_size or 0,
    )
