"""What sglat is compared with: conventional video codecs, and a library's entropy coders.

Codecs run through PyAV at low-delay settings on the same aligned crops. The library `constriction`
codes the same integers as our motion coder:

    python -m sglat_lab.bench.anchors FILE.sglat... --clips CLIPS --landmarker FILE.task

Source: Bamler 2022, https://arxiv.org/abs/2201.01741; https://pypi.org/project/constriction.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import TOTAL
from sglat.bitstream.motion_coder import (
    default_model,
    fit_model,
    frame_symbols,
    model_bytes,
    pack_frames,
)
from sglat.bitstream.rans import pack_escapes
from sglat.bitstream.reader import open_reader
from sglat.bitstream.writer import GROUP_FRAMES
from sglat.errors import MediaError, MissingExtraError
from sglat_lab.bench.motion_tracks import blendshape_tracks, landmark_tracks
from sglat_lab.measure.landmarks import tracked_video
from sglat_lab.measure.rates import Integers, sei_bits
from sglat_lab.report.pages import Record, page, provenance, write_page

LONGEST_GOP: Final = 1 << 20  # one intra frame, then predicted frames only
SEI_UNIT: Final = 6  # H.264 table 7-1
USER_DATA: Final = 5  # SEI payload type: unregistered user data
Float64 = NDArray[np.float64]

REACH: Final = 1 << 16  # of the stock models
SCALE_BITS: Final = 16  # a stored scale of a stock model
LEAST_SCALE: Final = 0.05  # steps
RATE: Final = 1 / 16  # of the running mean of magnitudes
LEAST_FRAMES: Final = 8
CODERS: Final = (
    "ours",
    "ideal",
    "same_range",
    "same_ans",
    "adaptive_laplace",
    "laplace",
    "gaussian",
)
"""Bits of a frame that are compared."""


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


def decode(codec: AnchorCodec, stream: AnchorStream) -> Iterator[NDArray[np.uint8]]:
    """Yield the decoded frames `[H, W, 3]` RGB of a stream.

    Raises:
        MediaError: the decoder refuses.
    """
    import av

    context: Any = av.CodecContext.create(_DECODERS[codec.encoder], "r")
    context.thread_count = 1
    try:
        for index, data in enumerate((*stream.packets, None)):
            packet = None if data is None else av.Packet(data)
            if packet is not None:
                packet.pts = packet.dts = index
            for frame in context.decode(packet):
                yield frame.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("anchor-undecodable", f"{codec.encoder}: {error}") from error


def _library() -> Any:
    """Return the module `constriction`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import constriction
    except ImportError as error:
        raise MissingExtraError("constriction", extra="bench") from error
    return constriction


def same_model_bits(values: Integers) -> dict[str, float]:
    """Return the bits of a track, `[T, C]`, under our model: as we code it, ideally, and by the
    library's coders."""
    fitted = fit_model(values)
    model = fitted or default_model(values.shape[1])
    probabilities: list[Float64] = []
    ours = side = 8 * model_bytes(fitted)
    for at in range(0, len(values), GROUP_FRAMES):
        group = values[at : at + GROUP_FRAMES]
        ours += 8 * len(pack_frames(group, model))
        starts, frequencies, escapes = frame_symbols(group, model)
        side += 8 * len(pack_escapes(escapes))
        start, frequency = np.array(starts), np.array(frequencies)
        parts = np.stack([start, frequency, TOTAL - start - frequency], axis=1)
        probabilities.append(parts / TOTAL)
    rows = np.concatenate(probabilities)
    stream = _library().stream
    family = stream.model.Categorical(perfect=False)
    chosen = np.ones(len(rows), dtype=np.int32)  # of before, the symbol, and behind it
    ranged = stream.queue.RangeEncoder()
    ranged.encode(chosen, family, rows)
    stacked = stream.stack.AnsCoder()
    stacked.encode_reverse(chosen, family, rows)
    return {
        "ours": ours,
        "ideal": side - float(np.log2(rows[:, 1]).sum()),
        "same_range": side + 8 * ranged.get_compressed().nbytes,
        "same_ans": side + 8 * stacked.get_compressed().nbytes,
    }


def stock_bits(values: Integers, family: Any, scales: Float64, side_bits: int) -> float:
    """Return the bits of a track, `[T, C]`, whose differences one stock model codes.

    Args:
        values: the track.
        family: a location-scale model of the library.
        scales: of each difference after the first frame, `[T - 1, C]`.
        side_bits: stored parameters.
    """
    steps = np.diff(values, axis=0).astype(np.int32).ravel()
    encoder = _library().stream.queue.RangeEncoder()
    encoder.encode(steps, family, np.zeros(len(steps)), scales.ravel())
    first = int(sei_bits(values[:1]).sum())
    return first + side_bits + 8 * int(encoder.get_compressed().nbytes)


def stock_model_bits(values: Integers) -> dict[str, float]:
    """Return the bits of a track under the library's own models."""
    model = _library().stream.model
    steps = np.diff(values, axis=0).astype(np.float64)
    side = SCALE_BITS * values.shape[1]

    def fixed(measure: Callable[[Float64], Float64]) -> Float64:
        scale = np.maximum(measure(steps), LEAST_SCALE).astype(np.float16).astype(np.float64)
        return np.broadcast_to(scale, steps.shape)

    running = np.empty_like(steps)
    mean = fixed(lambda d: np.abs(d).mean(axis=0))[0].copy()
    for t, step in enumerate(np.abs(steps)):
        running[t] = mean
        mean += RATE * (step - mean)
    laplace = model.QuantizedLaplace(-REACH, REACH)
    gaussian = model.QuantizedGaussian(-REACH, REACH)
    return {
        "adaptive_laplace": stock_bits(values, laplace, np.maximum(running, LEAST_SCALE), side),
        "laplace": stock_bits(values, laplace, fixed(lambda d: np.abs(d).mean(axis=0)), side),
        "gaussian": stock_bits(values, gaussian, fixed(lambda d: d.std(axis=0)), side),
    }


def measure(tracks: Sequence[Integers]) -> dict[str, float]:
    """Return frames, and bits a frame of several tracks together."""
    long = [values for values in tracks if len(values) >= LEAST_FRAMES]
    frames = sum(map(len, long))
    bits = [same_model_bits(values) | stock_model_bits(values) for values in long]
    return {"frames": frames} | {key: sum(b[key] for b in bits) / frames for key in CODERS}


def motion_of(path: Path) -> Integers:
    """Return the motion of a file, `[T, C]`."""
    with open_reader(path) as reader:
        return reader.read_motion().values


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="compare our motion coder with constriction")
    parser.add_argument("files", nargs="*", type=Path, help="encoded .sglat files")
    parser.add_argument("--vectors", type=Path, help="folder of legal vectors, measured as one")
    parser.add_argument("--clips", type=Path, help="folder of clips for simulated motion")
    parser.add_argument("--landmarker", type=Path, help="MediaPipe FaceLandmarker task file")
    parser.add_argument("--cache", type=Path, default=Path(".cache/motion"))
    parser.add_argument("--out", type=Path, help="write the record there as JSON, and the page")
    options = parser.parse_args()
    tracks = {path.stem: [motion_of(path)] for path in options.files}
    if options.vectors is not None:
        tracks["released vectors"] = [*map(motion_of, sorted(options.vectors.glob("*.sglat")))]
    if options.clips is not None:
        paths = sorted(options.clips.glob("*.mp4"))
        clips = {p.stem: tracked_video(p, options.landmarker, options.cache) for p in paths}
        for kind, made in (
            ("simulated from landmarks", landmark_tracks(clips)),
            ("simulated from blendshapes", blendshape_tracks(clips)),
        ):
            tracks[kind] = [track.quantized() for track in made.values()]
    record: Record = {
        "tracks": {name: measure(parts) for name, parts in tracks.items()},
        "runs": [provenance("python -m sglat_lab.bench.anchors")],
    }
    print(page("constriction", record))
    if options.out is not None:
        write_page(options.out, record, "constriction")
    return 0


if __name__ == "__main__":
    sys.exit(main())
