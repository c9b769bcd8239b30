"""What each container holds: video encoders by preference, sound that is copied, sound it needs."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from sglat.errors import MediaError, UsageError
from sglat.media.stream_template import CODEC_IDS

EVERY_CODEC: Final = frozenset(CODEC_IDS)
H264: Final = "libx264"
# Tried in this order with encoder="auto"; libx264 is in every PyAV wheel.
HARDWARE_ENCODERS: Final = ("h264_nvenc", "h264_videotoolbox", "h264_qsv")


@dataclass(frozen=True, kw_only=True)
class Container:
    """A kind of output file."""

    muxer: str
    """FFmpeg's name."""
    encoders: tuple[str, ...] = (H264, "libx265")
    """Video encoders that players of this container expect; the first is the default."""
    copied: frozenset[str] = EVERY_CODEC
    """Audio codecs that go in bit for bit."""
    sound: str | None = "aac"
    """What other sound becomes; None: the container has no sound."""
    options: dict[str, str] = field(default_factory=dict)


_MP4: Final = {"movflags": "use_metadata_tags+faststart"}
_MP4_SOUND: Final = frozenset({"aac", "ac3", "alac", "dts", "eac3", "flac", "mp3", "opus"})
_MOV_SOUND: Final = frozenset(
    {"aac", "ac3", "alac", "eac3", "mp3", "pcm_f32le", "pcm_s16be", "pcm_s16le", "pcm_s24le"}
)
_TS: Final = Container(muxer="mpegts", copied=frozenset({"aac", "ac3", "eac3", "mp2", "mp3"}))

CONTAINERS: Final[dict[str, Container]] = {
    ".mp4": Container(
        muxer="mp4", encoders=(H264, "libx265", "libsvtav1"), copied=_MP4_SOUND, options=_MP4
    ),
    ".m4v": Container(muxer="mp4", copied=_MP4_SOUND, options=_MP4),
    ".mov": Container(
        muxer="mov", encoders=(H264, "libx265", "prores_ks"), copied=_MOV_SOUND, options=_MP4
    ),
    ".mkv": Container(
        muxer="matroska", encoders=(H264, "libx265", "libvpx-vp9", "libsvtav1", "ffv1")
    ),
    ".webm": Container(
        muxer="webm", encoders=("libvpx-vp9", "libsvtav1", "libvpx"),
        copied=frozenset({"opus", "vorbis"}), sound="opus",
    ),
    ".gif": Container(muxer="gif", encoders=("gif",), copied=frozenset(), sound=None),
    ".apng": Container(muxer="apng", encoders=("apng",), copied=frozenset(), sound=None),
    ".avi": Container(
        muxer="avi", encoders=("mpeg4", H264, "ffv1"),
        copied=frozenset({"ac3", "mp3", "pcm_s16le", "pcm_u8"}), sound="pcm_s16le",
    ),
    ".ts": _TS,
    ".m2ts": _TS,
    ".mts": _TS,
    ".flv": Container(muxer="flv", encoders=(H264,), copied=frozenset({"aac", "mp3"})),
    ".nut": Container(muxer="nut", encoders=(H264, "ffv1"), sound="flac"),
}  # fmt: skip


# Of these muxers FFmpeg's own list is not complete.
TAKES_MORE: Final = {
    "mpegts": frozenset({"h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4"}),
    "matroska": frozenset(
        {"h264", "hevc", "vp8", "vp9", "av1", "ffv1", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg",
         "prores", "theora", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "dnxhd"}
    ),
}  # fmt: skip


def container_of(path: Path) -> Container:
    """Return the kind of container by a file's name."""
    found = CONTAINERS.get(path.suffix.lower())
    if found is None:
        known = " ".join(CONTAINERS)
        raise MediaError(
            "output-container", f"expected a video file name ending in one of {known}, got {path}"
        )
    return found


# Option that sets the quality of each encoder, its best and its worst value, and the default.
# x264's default is visually lossless for a generated face; the others are as near by eye.
QUALITY: Final[dict[str, tuple[str, int, int, int]]] = {
    "libx264": ("crf", 0, 51, 18),
    "libx265": ("crf", 0, 51, 20),
    "libvpx-vp9": ("crf", 0, 63, 24),
    "libvpx": ("crf", 4, 63, 10),
    "libsvtav1": ("crf", 1, 63, 26),
    "h264_nvenc": ("cq", 1, 51, 18),
    "h264_qsv": ("global_quality", 1, 51, 18),
    "h264_videotoolbox": ("q", 100, 1, 70),
    "mpeg4": ("qscale", 1, 31, 3),
}
# Without the macroblock tree: with it libx264 writes other bytes each time on processors with
# AVX-512. All are fast enough to stay far from the bottleneck.
OPTIONS: Final[dict[str, dict[str, str]]] = {
    "libx264": {"preset": "veryfast", "x264-params": "mbtree=0"},
    "libx265": {"preset": "fast", "x265-params": "log-level=error"},
    "libvpx-vp9": {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
    "libvpx": {"b": "4M", "deadline": "good", "cpu-used": "4"},
    "libsvtav1": {"preset": "8"},
    "h264_nvenc": {"rc": "vbr", "preset": "p4"},
}


def encoder_options(
    encoder: str, *, crf: int | None = None, quality: int | None = None
) -> dict[str, str]:
    """Return FFmpeg options of a video encoder.

    Args:
        encoder: FFmpeg's name.
        crf: the encoder's own scale of quality, mostly 0 (best) to 51 or 63.
        quality: 0 (worst) to 100 (best) on any encoder; `crf` goes first.

    Raises:
        UsageError: a quality for an encoder without one, or beyond its scale.
    """
    options = dict(OPTIONS.get(encoder, {}))
    scale = QUALITY.get(encoder)
    if scale is None:
        if crf is not None or quality is not None:
            known = ", ".join(QUALITY)
            raise UsageError(
                "bad-options", f"{encoder} has no quality to choose; these have: {known}"
            )
        return options
    name, best, worst, usual = scale
    value = usual
    if crf is not None:
        value = crf
        if not min(best, worst) <= value <= max(best, worst):
            raise UsageError(
                "bad-options", f"{encoder} takes a crf of {best} (best) to {worst}, got {value}"
            )
    elif quality is not None:
        value = round(worst + (best - worst) * quality / 100)
    return options | {name: str(value)}


def check_encoder(encoder: str, container: Container, path: Path) -> None:
    """Refuse an encoder that FFmpeg does not have or whose codec the container cannot hold."""
    *others, last = container.encoders
    fitting = f"--encoder {', '.join(others)} or {last}" if others else f"--encoder {last}"
    try:
        codec = av.codec.Codec(encoder, "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(
            "unknown-encoder",
            f"this FFmpeg has no encoder {encoder!r}; for {path.suffix} use {fitting}",
        ) from error
    if codec.type != "video":
        raise MediaError(
            "unknown-encoder",
            f"{encoder} encodes {codec.type}, not video; for {path.suffix} use {fitting}",
        )
    if not _holds(container.muxer, codec.canonical_name):
        other = ", or an .mkv output" if _holds("matroska", codec.canonical_name) else ""
        raise MediaError(
            "output-refused",
            f"{path.suffix} cannot hold {codec.canonical_name}; use {fitting}{other}",
        )


def _holds(muxer: str, codec: str) -> bool:
    if muxer in TAKES_MORE:
        return codec in TAKES_MORE[muxer]
    with av.open(io.BytesIO(), mode="w", format=muxer) as container:
        return codec in container.supported_codecs


def pixel_format_of(encoder: str) -> str:
    """Return the first pixel format of a list of good ones that an encoder takes."""
    formats: Any = av.codec.Codec(encoder, "w").video_formats
    names = [f.name for f in formats or ()]
    for wanted in ("yuv420p", "nv12", "yuvj420p", "yuv422p", "yuv444p", "yuv422p10le", "rgb24"):
        if wanted in names:
            return wanted
    return names[0] if names else "yuv420p"


def hardware_encoder() -> str | None:
    """Return the first hardware H.264 encoder that opens on this machine."""
    for name in HARDWARE_ENCODERS:
        if name not in av.codecs_available:
            continue
        try:
            context = av.CodecContext.create(name, "w")
            context.width, context.height = 256, 256
            context.pix_fmt = pixel_format_of(name)
            context.time_base = Fraction(1, 25)
            context.open()
        except (av.error.FFmpegError, ValueError):
            continue
        return name
    return None


def choose_encoder(encoder: str, path: Path) -> str:
    """Return a video encoder for an output, and check that the container holds its codec.

    Args:
        encoder: FFmpeg's name, or "auto": the container's own, in hardware where there is one.
        path: the output.
    """
    container = container_of(path)
    if encoder != "auto":
        check_encoder(encoder, container, path)
        return encoder
    usual = container.encoders[0]
    return (hardware_encoder() or usual) if usual == H264 else usual


def choose_stream(container: Any, path: Path) -> tuple[Any, list[str]]:
    """Return the video stream that is read, and a message if another is as large.

    As players do: one marked as the default before others, then the largest. Covers and streams
    without a decoder do not count.

    Raises:
        MediaError: no video stream, or none with a decoder.
    """
    streams = container.streams.video
    cover, default = av.stream.Disposition.attached_pic, av.stream.Disposition.default
    real = [stream for stream in streams if not int(stream.disposition) & int(cover)]
    if not real:
        kinds = sorted({s.type for s in container.streams}) or ["no stream"]
        found = "a cover picture" if streams else ", ".join(kinds).replace("audio", "sound")
        raise MediaError("no-video", f"expected a video stream, {path} has only {found}")
    known = [stream for stream in real if stream.codec_context is not None]
    if not known:
        raise MediaError("no-decoder", f"no decoder for the video stream of {path}")
    areas = {stream.index: stream.width * stream.height for stream in known}
    chosen = max(known, key=lambda s: (int(s.disposition) & int(default) != 0, areas[s.index]))
    if all(area < areas[chosen.index] for at, area in areas.items() if at != chosen.index):
        return chosen, []
    sizes = ", ".join(f"{s.width}x{s.height}" for s in known if s is not chosen)
    return chosen, [
        f"{len(known)} video streams: stream {chosen.index} of {chosen.width}x{chosen.height} is "
        f"read, not {sizes}"
    ]
