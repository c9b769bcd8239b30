"""Conventional codecs at low-delay settings on the same aligned crops, through PyAV."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError

LONGEST_GOP: Final = 1 << 20  # one intra frame, then predicted frames only
SEI_UNIT: Final = 6  # H.264 table 7-1
USER_DATA: Final = 5  # SEI payload type: unregistered user data


@dataclass(frozen=True, kw_only=True)
class AnchorCodec:
    """One encoder and how it is driven."""

    name: str
    encoder: str
    """FFmpeg's name."""
    options: dict[str, str]
    levels: tuple[int, ...]
    """Constant-quality levels from good to the coarsest that the encoder has."""


ANCHORS: Final = (
    AnchorCodec(
        name="x264",
        encoder="libx264",
        options={"preset": "slow", "tune": "zerolatency", "x264-params": "keyint=infinite"},
        levels=(25, 29, 33, 37, 41, 45, 48, 51),
    ),
    AnchorCodec(
        name="x265",
        encoder="libx265",
        options={
            "preset": "medium", "tune": "zerolatency",
            "x265-params": "keyint=-1:log-level=none:pools=none:frame-threads=1:info=0",
        },
        levels=(25, 29, 33, 37, 41, 45, 48, 51),
    ),
    AnchorCodec(
        name="SVT-AV1",
        encoder="libsvtav1",
        options={"preset": "7", "svtav1-params": "pred-struct=1:keyint=-1:lp=1:scd=0"},
        levels=(30, 36, 42, 48, 53, 57, 60, 63),
    ),
    AnchorCodec(
        name="VP9",
        encoder="libvpx-vp9",
        options={
            "deadline": "good", "cpu-used": "3", "lag-in-frames": "0", "auto-alt-ref": "0",
            "error-resilient": "0", "row-mt": "0",
        },
        levels=(30, 36, 42, 48, 53, 57, 60, 63),
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AnchorStream:
    """A coded sequence: packets as they leave the encoder, without a container."""

    first_bytes: int
    """The intra frame with its parameter sets."""
    other_bytes: int
    """All predicted frames."""
    encode_seconds: float
    packets: tuple[bytes, ...]


def refusal(codec: AnchorCodec, side: int) -> str | None:
    """Return why an encoder cannot code square crops of a size; None if it can."""
    import av

    if codec.encoder not in av.codec.codecs_available:
        return f"this build of PyAV has no {codec.encoder}"
    try:
        encode(codec, codec.levels[-1], np.zeros((2, side, side, 3), np.uint8), Fraction(25))
    except MediaError as error:
        return str(error)
    return None


def encode(
    codec: AnchorCodec, level: int, frames: NDArray[np.uint8], rate: Fraction
) -> AnchorStream:
    """Encode crops at one level.

    Args:
        codec: which, and its settings.
        level: CRF, or the quantizer of VP9.
        frames: `[T, H, W, 3]` RGB, even sides.
        rate: frames per second.

    Raises:
        MediaError: the encoder refuses or delays beyond the end.
    """
    import av

    context: Any = av.CodecContext.create(codec.encoder, "w")
    context.width, context.height = frames.shape[2], frames.shape[1]
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate = 1 / rate, rate
    context.thread_count = 1
    context.gop_size = LONGEST_GOP
    context.max_b_frames = 0
    options = {**codec.options, "crf": str(level)}
    if codec.encoder == "libvpx-vp9":
        context.bit_rate = 0  # constant quality
    context.options = options
    began = time.perf_counter()
    packets: list[bytes] = []
    try:
        context.open()
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, 1 / rate
            packets += [bytes(packet) for packet in context.encode(frame)]
        packets += [bytes(packet) for packet in context.encode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("anchor-refused", f"{codec.encoder} at {level}: {error}") from error
    packets = [packet for packet in packets if packet]
    if not packets:
        raise MediaError("anchor-empty", f"{codec.encoder} at {level} gave no packets")
    if codec.encoder == "libx264":
        packets[0] = without_banner(packets[0])
    return AnchorStream(
        first_bytes=len(packets[0]),
        other_bytes=sum(map(len, packets[1:])),
        encode_seconds=time.perf_counter() - began,
        packets=tuple(packets),
    )


def without_banner(packet: bytes) -> bytes:
    """Return an H.264 access unit (Annex B) without the text in which x264 names its settings.

    Half a kilobyte that no picture needs; other encoders can be told to leave it out.
    """
    start = b"\x00\x00\x01"
    units = packet.split(start)
    kept = [units[0]]
    for unit in units[1:]:
        is_banner = len(unit) > 1 and unit[0] & 31 == SEI_UNIT and unit[1] == USER_DATA
        if not is_banner:
            kept.append(unit)
    return start.join(kept)


_DECODERS: Final = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "libdav1d",
                    "libvpx-vp9": "libvpx-vp9"}  # fmt: skip


def decode(codec: AnchorCodec, stream: AnchorStream) -> NDArray[np.uint8]:
    """Return the decoded frames `[T, H, W, 3]` RGB of a stream.

    Raises:
        MediaError: the decoder refuses.
    """
    import av

    context: Any = av.CodecContext.create(_DECODERS[codec.encoder], "r")
    context.thread_count = 1
    pictures: list[NDArray[np.uint8]] = []
    try:
        for index, data in enumerate(stream.packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = index
            pictures += [f.to_ndarray(format="rgb24") for f in context.decode(packet)]
        pictures += [f.to_ndarray(format="rgb24") for f in context.decode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("anchor-undecodable", f"{codec.encoder}: {error}") from error
    return np.stack(pictures)
