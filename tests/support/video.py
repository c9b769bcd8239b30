"""Small synthetic videos, made on the fly; nothing is shipped."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def moving_square(index: int, *, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return a frame whose content tells its number: a red square on a smooth ground."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 2, columns * 2, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    left = (index * 3) % (width - 12)
    picture[10:22, left : left + 12] = (230, 30, 30)
    return picture


def write_video(
    path: Path,
    pictures: list[NDArray[np.uint8]],
    *,
    time_base: Fraction = Fraction(1, 25),
    pts: list[int] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    audio_codec: str | None = None,
    sample_rate: int = 48000,
    options: dict[str, str] | None = None,
    audio_start_seconds: int = 0,
    colour: tuple[int, int, int] | None = None,
) -> Path:
    """Write pictures as a video, with a sweep as sound when `audio_codec` is given."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        video.time_base = video.codec_context.time_base = time_base
        if colour is not None:  # flags alone; the pictures are as they are
            context = video.codec_context
            context.colorspace, context.color_trc, context.color_primaries = colour
        audio = None
        if audio_codec is not None:
            audio = container.add_stream(audio_codec, rate=sample_rate)
        stamps = pts if pts is not None else list(range(len(pictures)))
        for picture, stamp in zip(pictures, stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = stamp, time_base
            if colour is not None:
                frame.colorspace, frame.color_trc, frame.color_primaries = colour
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            end = float((stamps[-1] + 1) * time_base)
            _write_sweep(
                container, audio, sample_rate, end - audio_start_seconds, audio_start_seconds
            )
    return path


def write_audio_only(path: Path, *, codec: str = "aac", seconds: float = 0.5) -> Path:
    """Write a file with sound and no picture."""
    with av.open(str(path), "w") as container:
        _write_sweep(container, container.add_stream(codec, rate=48000), 48000, seconds)
    return path


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Patch the track header of an MP4: the 2x2 part of its matrix, in whole numbers."""
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd")
    start = box + 4 + 40  # version 0: 40 bytes of times, ids, duration and reserved fields
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def _write_sweep(
    container: object, stream: object, sample_rate: int, seconds: float, start_seconds: int = 0
) -> None:
    count = max(2048, int(sample_rate * seconds))
    time = np.arange(count) / sample_rate
    wave = (0.3 * np.sin(2 * np.pi * (300 + 400 * time) * time)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave / 2]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    frame.pts = start_seconds * sample_rate
    resampler = av.AudioResampler(
        format=stream.format.name,
        layout="stereo",
        rate=sample_rate,
        frame_size=stream.codec_context.frame_size or 1024,
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def write_flagged(
    path: Path,
    planes: tuple[int, ...],
    pixel_format: str,
    *,
    matrix: int,
    transfer: int,
    primaries: int,
    span: int = 1,
    codec: str = "ffv1",
    size: tuple[int, int] = (64, 48),
    time_base: Fraction = Fraction(1, 25),
) -> Path:
    """Write two frames of one colour, given as codes of each plane, with colour flags of H.273.

    Args:
        path: whose container keeps the flags.
        planes: one code a plane.
        pixel_format: 8 bits a sample, or little-endian words.
        matrix: code point of the matrix.
        transfer: code point of the transfer curve.
        primaries: code point of the primaries.
        span: 1 limited, 2 full, 0 unspecified range.
        codec: lossless, or the codes change.
        size: width and height.
        time_base: one frame a unit.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        context = stream.codec_context
        context.colorspace, context.color_trc = matrix, transfer
        context.color_primaries, context.color_range = primaries, span
        for stamp in range(2):
            frame = av.VideoFrame(*size, pixel_format)
            for plane, code in zip(frame.planes, planes, strict=True):
                word = "<u2" if pixel_format.endswith("le") else "u1"
                count = plane.buffer_size // np.dtype(word).itemsize
                plane.update(np.full(count, code, word).tobytes())
            frame.colorspace, frame.color_range = matrix, span
            frame.color_trc, frame.color_primaries = transfer, primaries
            frame.pts, frame.time_base = stamp, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
