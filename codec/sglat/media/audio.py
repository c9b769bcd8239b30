"""Audio in: compressed packets copied bit for bit, never decoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import av

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.media.reader import open_container

MAX_EXTRADATA: Final = 1 << 16  # Vorbis set-up headers reach some kilobytes


class AudioReader:
    """The first audio stream of a file as packets.

    `format` is None when the file has no sound. Packets come in file order, one at a time.

    Raises:
        MediaError: the file cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._container = open_container(self.path)
        streams = [s for s in self._container.streams.audio if s.codec_context is not None]
        self._stream = streams[0] if streams else None
        for stream in self._container.streams:
            if stream is not self._stream:
                stream.discard = av.stream.Discard.all  # not even parsed: the pass is quick
        self.format = None if self._stream is None else _describe(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    def __iter__(self) -> Iterator[AudioPacket]:
        """Yield every packet once; a damaged tail ends the stream."""
        if self._stream is None:
            return
        clock = 0
        for packet in _until_damaged(self._container.demux(self._stream)):
            if packet.size == 0:  # the end marker of the demuxer
                continue
            duration = int(packet.duration or 0)
            dts = packet.dts if packet.dts is not None else packet.pts
            dts = clock if dts is None else int(dts)
            clock = dts + duration
            yield AudioPacket(
                data=bytes(packet),
                pts=dts if packet.pts is None else int(packet.pts),
                dts=dts,
                duration=duration,
                is_key_frame=bool(packet.is_keyframe),
            )


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
