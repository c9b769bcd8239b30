"""Video out: frames with exact time stamps, sound in step, marks, atomic rename."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.errors import MediaError
from sglat.files import AtomicOutput, Closable
from sglat.media.containers import (
    Container,
    choose_encoder,
    container_of,
    encoder_options,
    pixel_format_of,
)
from sglat.media.pictures import mark_file, service_names
from sglat.media.pixels import EXACT_CONVERSION, FULL_RANGE, LIMITED_RANGE
from sglat.media.stream_template import open_template
from sglat.media.transcode import AudioTranscoder

Finish: TypeAlias = Callable[[Path], object]
BT709: Final = 1  # matrix, primaries and transfer code point of ITU-T H.273
GIF_TIME_BASE: Final = Fraction(1, 100)
GIF_LEAST_DELAY: Final = 2  # hundredths of a second; browsers slow shorter ones down to a tenth


class VideoWriter(Closable):
    """Write a video with sound.

    Use as a context manager: leaving it normally finishes the file and renames it; leaving it by an
    exception removes the partial file. Odd sides are extended by one repeated pixel, because 4:2:0
    video has even sides.

    Args:
        path: output; the suffix chooses container and codecs, see `CONTAINERS`.
        size: width and height in pixels.
        time_base: seconds per unit of the time stamps given to `write`; kept exactly where the
            container can. A GIF counts hundredths of a second and leaves out frames that would
            come closer than two.
        frame_rate: nominal rate, for the header; defaults to one frame per unit.
        audio: format of a stream and its first packets, in decoding order; packets that become
            known later go to `add_audio`. They are copied where the container holds the codec,
            else encoded again.
        metadata: container tags, written as they are.
        encoder: FFmpeg encoder name, or "auto".
        crf: quality on the encoder's own scale.
        quality: 0 to 100 on any encoder.
        is_sound_cut: leave out sound that goes on after the last frame.
        force: replace an existing file.
        threads: encoder threads; 0 lets the library choose.
        finish: called with the complete file before it gets its name, to sign it.

    Raises:
        UsageError: the output exists; a quality that the encoder does not have.
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
        crf: int | None = None,
        quality: int | None = None,
        is_sound_cut: bool = False,
        force: bool = False,
        threads: int = 0,
        finish: Finish | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.notes: list[str] = []
        """What was done to the sound, one line each."""
        self._kind = container_of(self.path)
        self.encoder = choose_encoder(encoder, self.path)
        self._options = encoder_options(self.encoder, crf=crf, quality=quality)
        self._marks = dict(metadata or {})
        self._is_gif = self._kind.muxer == "gif"
        self.time_base = GIF_TIME_BASE if self._is_gif else time_base
        self._given_base = time_base
        self._last_pts: int | None = None
        self._is_sound_cut = is_sound_cut
        self._video_end = Fraction(0)
        self._frame_count = 0
        self._palette = _Palette() if self._is_gif else None
        self._sound: _Sound | None = None
        self._finish = finish
        self._output = AtomicOutput(path, force=force)
        if self.encoder == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only: it prints its settings to stderr
        self._container = self._open()
        try:
            self._container.metadata.update(self._marks)
            if self._kind.muxer == "mpegts":
                self._container.metadata.update(service_names(self._marks))
            self._video = self._add_video(frame_rate or 1 / time_base, threads)
            if audio is not None:
                self._open_sound(*audio)
            self._container.start_encoding()
        except BaseException as error:
            self.discard()
            if isinstance(error, (av.error.FFmpegError, ValueError)):
                raise self._refused(error) from error
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
        if self._is_gif:
            factor = self._given_base / GIF_TIME_BASE
            pts, duration = round(pts * factor), max(GIF_LEAST_DELAY, round(duration * factor))
            if self._last_pts is not None and pts < self._last_pts + GIF_LEAST_DELAY:
                return
            self._last_pts = pts
        self._frame_count += 1
        self._video_end = (pts + duration) * self.time_base
        frame = self._frame(picture)
        frame.pts, frame.time_base = pts, self.time_base
        if duration:
            frame.duration = duration
        try:
            self._mux_video(self._video.encode(frame))
        except (av.error.FFmpegError, ValueError) as error:
            raise self._refused(error) from error

    def add_audio(self, packets: Iterable[AudioPacket]) -> None:
        """Hand over more packets of the audio stream; they are written when their time comes."""
        if self._sound is not None:
            self._sound.add(packets)

    def close(self) -> None:
        """Finish the file and give it its name."""
        try:
            last = self._video.encode(None)
            if self._frame_count == 1:
                for packet in last:
                    packet.dts = packet.pts  # libx265 leaves it open for a single frame
            self._mux_video(last)
            if self._sound is not None:
                end = self._video_end if self._is_sound_cut else None
                for packet in self._sound.rest(end):
                    self._container.mux(packet)
            self._container.close()
            mark_file(self._output.partial, self._kind.muxer, self._marks)
        except (av.error.FFmpegError, ValueError) as error:
            self.discard()
            raise self._refused(error) from error
        if self._finish is not None:
            try:
                self._finish(self._output.partial)
            except BaseException:
                self.discard()
                raise
        self._output.commit()
        self._close_sound()

    def _open(self) -> Any:
        try:
            return av.open(
                str(self._output.partial), mode="w", format=self._kind.muxer,
                container_options=self._kind.options,
            )  # fmt: skip
        except (av.error.FFmpegError, ValueError) as error:
            self._output.discard()
            raise MediaError("output-container", f"cannot write {self.path}: {error}") from error

    def _add_video(self, frame_rate: Fraction, threads: int) -> Any:
        if self._kind.muxer == "avi":
            self._options["bf"] = "0"  # AVI has no room for a second time stamp
        stream = self._container.add_stream(
            self.encoder, rate=frame_rate.limit_denominator(1 << 16), options=self._options
        )
        stream.width, stream.height = (
            self.size if self._is_gif else tuple(side + side % 2 for side in self.size)
        )
        stream.pix_fmt = "pal8" if self._is_gif else pixel_format_of(self.encoder)
        stream.time_base = stream.codec_context.time_base = self.time_base
        context = stream.codec_context
        if "rgb" not in stream.pix_fmt and not self._is_gif:
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = FULL_RANGE if "yuvj" in stream.pix_fmt else LIMITED_RANGE
        context.flags |= int(av.codec.context.Flags.frame_duration)
        if threads:
            context.thread_count = threads
        return stream

    def _frame(self, picture: NDArray[np.uint8]) -> Any:
        if self._palette is not None:
            return self._palette.frame(np.ascontiguousarray(picture))
        context = self._video.codec_context
        frame = av.VideoFrame.from_ndarray(self._even(picture), format="rgb24")
        if "rgb" in context.pix_fmt:
            return frame
        return frame.reformat(
            format=context.pix_fmt,
            dst_colorspace=BT709,
            dst_color_range=context.color_range,
            interpolation=EXACT_CONVERSION,
        )

    def _open_sound(self, audio: AudioFormat, packets: Iterable[AudioPacket]) -> None:
        if self._kind.sound is None:
            self.notes.append(f"sound left out: {self.path.suffix} has none")
            return
        self._sound = _Sound(self._container, self._kind, audio, packets)
        if self._sound.codec != audio.codec:
            self.notes.append(
                f"sound: {audio.codec} encoded as {self._sound.codec}, "
                f"which {self.path.suffix} holds"
            )

    def _refused(self, error: Exception) -> MediaError:
        fitting = [name for name in self._kind.encoders if name != self.encoder]
        advice = f"; try --encoder {fitting[0]}" if fitting else ""
        sound = "" if self._sound is None else f" and {self._sound.codec} sound"
        return MediaError(
            "output-refused",
            f"cannot write {self.path} with {self.encoder}{sound} at "
            f"{self.size[0]}x{self.size[1]}: {getattr(error, 'strerror', None) or error}{advice}",
        )

    def _mux_video(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            if packet.dts is not None and self._sound is not None:
                seconds = packet.dts * Fraction(packet.time_base)
                self._container.mux(list(self._sound.until(seconds)))
            self._container.mux(packet)

    def _even(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return np.ascontiguousarray(picture)

    def _close_sound(self) -> None:
        if self._sound is not None:
            self._sound.close()

    def discard(self) -> None:
        """Remove the partial file."""
        with suppress(av.error.FFmpegError, ValueError):
            self._container.close()
        self._close_sound()
        self._output.discard()


class _Sound:
    """The audio stream of an output: packets copied where the container holds their format, or
    encoded again."""

    def __init__(
        self, container: Any, kind: Container, audio: AudioFormat, packets: Iterable[AudioPacket]
    ) -> None:
        self._given: deque[AudioPacket] = deque()
        self._iterator = iter(packets)
        self._ready: deque[AudioPacket] = deque()
        self._transcoder: AudioTranscoder | None = None
        first = next(self._iterator, None)
        if first is not None:
            self._given.append(first)
        self._templates = [open_template(audio, first)]
        if audio.codec not in kind.copied:
            assert kind.sound is not None
            decoder = self._templates[0].streams.audio[0].codec_context
            self._transcoder = AudioTranscoder(decoder, audio, kind.sound)
            audio = self._transcoder.format
            self._templates.append(open_template(audio, None))
        self.codec = audio.codec
        self._time_base = audio.time_base
        self._stream = container.add_stream_from_template(self._templates[-1].streams.audio[0])
        self._stream.time_base = audio.time_base

    def add(self, packets: Iterable[AudioPacket]) -> None:
        """Take more packets."""
        self._given.extend(self._iterator)
        self._given.extend(packets)

    def until(self, seconds: Fraction) -> Iterator[Any]:
        """Yield PyAV packets up to a time, as far as they are known."""
        while self._fill() and self._ready[0].dts * self._time_base <= seconds:
            yield self._packet(self._ready.popleft())

    def rest(self, end_seconds: Fraction | None) -> Iterator[Any]:
        """Yield everything that is left, up to a time if there is one."""
        while self._fill():
            if end_seconds is not None and self._ready[0].pts * self._time_base >= end_seconds:
                return
            yield self._packet(self._ready.popleft())
        if self._transcoder is not None:
            yield from map(self._packet, self._transcoder.finish())

    def close(self) -> None:
        """Release the templates."""
        for template in self._templates:
            template.close()

    def _fill(self) -> bool:
        """Make the next packet ready; return whether there is one."""
        while not self._ready:
            given = self._given.popleft() if self._given else next(self._iterator, None)
            if given is None:
                return False
            made = [given] if self._transcoder is None else self._transcoder.push(given)
            self._ready.extend(made)
        return True

    def _packet(self, stored: AudioPacket) -> Any:
        packet = av.Packet(stored.data)
        packet.pts, packet.dts, packet.duration = stored.pts, stored.dts, stored.duration
        packet.time_base = self._time_base
        packet.is_keyframe = stored.is_key_frame
        packet.stream = self._stream
        return packet


class _Palette:
    """Pictures with 256 colours, chosen for each frame."""

    def __init__(self) -> None:
        self._graph: Any = None

    def frame(self, picture: NDArray[np.uint8]) -> Any:
        """Return `[H, W, 3]` RGB as a frame with a palette."""
        if self._graph is None:
            self._graph = self._open(picture.shape[1], picture.shape[0])
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = 0
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _open(self, width: int, height: int) -> Any:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=GIF_TIME_BASE
        )
        split, use = graph.add("split"), graph.add("paletteuse", "new=1:dither=sierra2_4a")
        choose = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(choose, 1, 0)
        choose.link_to(use, 0, 1)
        use.link_to(graph.add("buffersink"))
        graph.configure()
        return graph
