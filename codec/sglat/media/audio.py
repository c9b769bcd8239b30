"""Audio in: compressed packets copied bit for bit, never decoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.files import Closable
from sglat.media.reader import VideoReader, first_sound_seconds, open_container

MAX_EXTRADATA: Final = 1 << 16  # Vorbis set-up headers reach some kilobytes


class AudioReader(Closable):
    """The first audio stream of a file as packets.

    `format` is None when the file has no sound. Packets come in file order, one at a time.

    Args:
        path: the file.
        zero_seconds: time 0 by the container's clock, as `VideoReader` found it.
        end_seconds: packets from here on are left out, by the same clock; None: none.
        is_cut: packets that end before time 0 are left out; without a range they prime the decoder.

    Raises:
        MediaError: the file cannot be opened.
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

    def close(self) -> None:
        """Release the file."""
        self._container.close()

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
