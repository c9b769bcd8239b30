"""Video out: frames with exact time stamps, the source's audio packets, marks, atomic rename."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import av
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.files import AtomicOutput
from sglat.media.reader import EXACT_CONVERSION
from sglat.media.stream_template import open_template

# Tried in this order with encoder="auto"; libx264 is in every PyAV wheel.
HARDWARE_ENCODERS: Final = ("h264_nvenc", "h264_videotoolbox", "h264_qsv")
# Visually lossless for a generated face, and fast enough to stay far from the bottleneck. Without
# the macroblock tree: with it libx264 writes other bytes each time on processors with AVX-512.
X264_OPTIONS: Final = {"crf": "18", "preset": "veryfast", "x264-params": "mbtree=0"}
HARDWARE_OPTIONS: Final = {
    "h264_nvenc": {"rc": "vbr", "cq": "18", "preset": "p4"},
    "h264_videotoolbox": {"q": "70"},
    "h264_qsv": {"global_quality": "18"},
}
BT709: Final = 1  # matrix, primaries and transfer code point of ITU-T H.273
LIMITED_RANGE: Final = 1
UNPLACED: Final = "this container cannot hold it; an .mkv output holds every audio codec"


def hardware_encoder() -> str | None:
    """Return the first hardware H.264 encoder that opens on this machine."""
    for name in HARDWARE_ENCODERS:
        if name not in av.codecs_available:
            continue
        try:
            context = av.CodecContext.create(name, "w")
            context.width, context.height = 256, 256
            context.pix_fmt = "yuv420p" if name != "h264_qsv" else "nv12"
            context.time_base = Fraction(1, 25)
            context.open()
        except (av.error.FFmpegError, ValueError):
            continue
        return name
    return None


class VideoWriter:
    """Write H.264 video, with audio packets interleaved in sync.

    Use as a context manager: leaving it normally finishes the file and renames it; leaving it by an
    exception removes the partial file. Odd sides are extended by one repeated pixel, because 4:2:0
    video has even sides.

    Args:
        path: output; the suffix chooses the container.
        size: width and height in pixels.
        time_base: seconds per unit of the time stamps given to `write`; kept exactly.
        frame_rate: nominal rate, for the header; defaults to one frame per unit.
        audio: format of a stream to copy and its first packets, in decoding order; packets that
            become known later go to `add_audio`.
        metadata: container tags, written as they are.
        encoder: FFmpeg encoder name, or "auto": hardware when there is one, else libx264.
        force: replace an existing file.
        threads: encoder threads; 0 lets the library choose.

    Raises:
        UsageError: the output exists.
        MediaError: the container is unknown, or it cannot hold the audio codec.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        size: tuple[int, int],
        time_base: Fraction,
        frame_rate: Fraction | None = None,
        audio: tuple[AudioFormat, Iterable[AudioPacket]] | None = None,
        metadata: Mapping[str, str] | None = None,
        encoder: str = "auto",
        force: bool = False,
        threads: int = 0,
    ) -> None:
        self.path = Path(path)
        self._output = AtomicOutput(path, force=force)
        self.size = size
        self.time_base = time_base
        self.encoder = (hardware_encoder() or "libx264") if encoder == "auto" else encoder
        self._container = self._open()
        self._template: Any = None
        try:
            self._container.metadata.update(metadata or {})
            self._video = self._add_video(frame_rate or 1 / time_base, threads)
            self._audio: Any = None
            self._packets: Iterator[AudioPacket] = iter(())
            self._later: deque[AudioPacket] = deque()
            if audio is not None:
                self._open_audio(*audio)
            self._pending = next(self._packets, None)
            self._container.start_encoding()
        except BaseException as error:
            self._discard()
            if isinstance(error, (av.error.FFmpegError, ValueError)):
                raise MediaError("output-refused", self._explain(error)) from error
            raise

    def write(self, picture: NDArray[np.uint8], pts: int, *, duration: int = 0) -> None:
        """Append one frame.

        Args:
            picture: `[H, W, 3]` RGB in the size given at the start.
            pts: strictly increasing, in units of the time base.
            duration: in the same units; 0 when unknown.
        """
        width, height = self.size
        if picture.shape != (height, width, 3):
            raise MediaError(
                "picture-size", f"expected {width}x{height} RGB, found shape {picture.shape}"
            )
        frame = av.VideoFrame.from_ndarray(self._even(picture), format="rgb24")
        frame = frame.reformat(
            format=self._video.codec_context.pix_fmt,
            dst_colorspace=BT709,
            dst_color_range=LIMITED_RANGE,
            interpolation=EXACT_CONVERSION,
        )
        frame.pts, frame.time_base = pts, self.time_base
        if duration:
            frame.duration = duration
        self._mux_video(self._video.encode(frame))

    def add_audio(self, packets: Iterable[AudioPacket]) -> None:
        """Hand over more packets of the audio stream; they are written when their time comes."""
        if self._audio is not None:
            self._later.extend(packets)

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            self._mux_video(self._video.encode(None))
            self._mux_audio_until(None)
            self._container.close()
        except (av.error.FFmpegError, ValueError) as error:
            self._discard()
            raise MediaError("output-refused", self._explain(error)) from error
        self._output.commit()
        self._close_template()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def _open(self) -> Any:
        options = {}
        if self.path.suffix.lower() in {".mp4", ".mov", ".m4v"}:
            options["movflags"] = "use_metadata_tags+faststart"
        try:
            return av.open(str(self._output.partial), mode="w", container_options=options)
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError(
                "output-container", f"expected a video file name such as out.mp4, got {self.path}"
            ) from error

    def _add_video(self, frame_rate: Fraction, threads: int) -> Any:
        options = X264_OPTIONS if self.encoder == "libx264" else {}
        stream = self._container.add_stream(
            self.encoder,
            rate=frame_rate.limit_denominator(1 << 16),
            options=dict(HARDWARE_OPTIONS.get(self.encoder, options)),
        )
        stream.width, stream.height = (side + side % 2 for side in self.size)
        stream.pix_fmt = "nv12" if self.encoder == "h264_qsv" else "yuv420p"
        stream.time_base = stream.codec_context.time_base = self.time_base
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        context.flags |= int(av.codec.context.Flags.frame_duration)
        if threads:
            context.thread_count = threads
        return stream

    def _open_audio(self, audio: AudioFormat, packets: Iterable[AudioPacket]) -> None:
        iterator = iter(packets)
        first = next(iterator, None)
        self._audio_codec = audio.codec
        self._template = open_template(audio, first)
        self._audio = self._container.add_stream_from_template(self._template.streams.audio[0])
        self._audio.time_base = self._audio_time_base = audio.time_base
        self._packets = iterator if first is None else chain([first], iterator)

    def _explain(self, error: Exception) -> str:
        if self._audio is not None:
            return f"cannot write {self._audio_codec} audio to {self.path}: {UNPLACED}"
        return f"cannot write {self.path} with {self.encoder}: {error}"

    def _mux_video(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            if packet.dts is not None:
                self._mux_audio_until(packet.dts * Fraction(packet.time_base))
            self._container.mux(packet)

    def _mux_audio_until(self, seconds: Fraction | None) -> None:
        while True:
            if self._pending is None:
                self._pending = self._later.popleft() if self._later else None
            if self._pending is None:
                return
            if seconds is not None and self._pending.dts * self._audio_time_base > seconds:
                return
            packet = av.Packet(self._pending.data)
            packet.pts, packet.dts = self._pending.pts, self._pending.dts
            packet.duration = self._pending.duration
            packet.time_base = self._audio_time_base
            packet.is_keyframe = self._pending.is_key_frame
            packet.stream = self._audio
            self._container.mux(packet)
            self._pending = next(self._packets, None)

    def _even(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(picture)

    def _close_template(self) -> None:
        if self._template is not None:
            self._template.close()

    def _discard(self) -> None:
        with suppress(av.error.FFmpegError, ValueError):
            self._container.close()
        self._close_template()
        self._output.discard()
