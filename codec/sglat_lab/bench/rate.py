r"""Measures what a `.sglat` file costs: one command, one table.

    python -m sglat_lab.bench.rate --clips ../shared/clips --landmarker FILE.task \
        --cache .cache/motion
    python -m sglat_lab.bench.rate real1.sglat real2.sglat

The first form needs mediapipe and measures simulated motion (see `motion_tracks.py`); the second
one measures real files. Both forms can be given together. `--out benchmarks/results/rate.md`
writes the report there.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.chunks import ByteSource, read_chunks
from sglat.bitstream.fit import fit_model, model_bytes
from sglat.bitstream.latent import fit_latent, quantize_tensor
from sglat.bitstream.layers import pack_layer_body
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import (
    DeltaLayer,
    Header,
    Identity,
    LatentLayer,
    LowRankDelta,
    Motion,
    QuantizedTensor,
)
from sglat.bitstream.seek import SeekableFile
from sglat.bitstream.writer import Writer
from sglat_lab.bench import motion_tracks as tracks
from sglat_lab.measure import rates as anchors

Integers = NDArray[np.int32]
FPS = 25
ROOT = Path(__file__).resolve().parents[3]
MINUTE = 60 * FPS
LAYER_BYTES = 2000  # the bar of layer 0, decimal kilobytes
CHUNK_FRAME_BYTES = 12  # type, flags, length, CRC
SIGNATURE_BYTES = 8


@dataclass
class Report:
    """Lines of Markdown."""

    lines: list[str] = field(default_factory=list)
    bars: list[list[str]] = field(default_factory=list)
    """Figure, bar, found, verdict."""

    def bar(self, figure: str, bar: str, found: str, is_met: bool) -> None:
        """Note one figure that must be reached."""
        self.bars.append([figure, bar, found, "met" if is_met else "**missed**"])

    def text(self, *lines: str) -> None:
        for line in lines:
            self.lines += [line, ""]

    def table(self, head: list[str], rows: list[list[str]]) -> None:
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|" + "---|" * len(head))
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.lines.append("")


def cells(template: str, *values: object) -> list[str]:
    """Return table cells: one format for each, separated by spaces."""
    return [form.format(value) for form, value in zip(template.split(), values, strict=True)]


def header(values: Integers, *, is_fitted: bool = True) -> Header:
    """Return the header of a measuring file."""
    return Header(
        decoder_id=bytes(range(32)),
        bundle="mini",
        resolution=128,
        num_ws=12,
        w_dim=256,
        motion_steps=np.full(34, 0.25, np.float32),
        time_base=Fraction(1, FPS),
        frame_ticks=1,
        frame_count=len(values),
        encoder="sglat 0.1.0",
        model=fit_model(values) if is_fitted else None,
    )


def small_identity() -> Identity:
    """Return an identity of one flat latent: its cost is measured elsewhere."""
    latent = QuantizedTensor(values=np.zeros((12, 256), np.int32), step=1.0)
    return Identity(layers=(LatentLayer(latent=latent),), neutral=np.zeros(34, np.float32))


def write_file(
    values: Integers, identity: Identity | None = None, *, is_fitted: bool = True
) -> bytes:
    """Return a whole file of these integers."""
    out = io.BytesIO()
    head = header(values, is_fitted=is_fitted)
    writer = Writer(out, head)
    writer.put_identity(identity or small_identity())
    writer.put_motion(Motion(values=values, steps=head.motion_steps))
    writer.close()
    return out.getvalue()


@dataclass(frozen=True)
class Sizes:
    """Where the bytes of a file go."""

    total: int
    payloads: dict[str, int]
    chunks: int
    frames: int
    model: int

    @property
    def motion(self) -> int:
        """Motion groups with their heads, and the motion model in HEAD."""
        return self.payloads.get("MOTN", 0) + self.model

    @property
    def frame(self) -> int:
        """Signature, chunk heads, checksums, index and end: what only the container needs."""
        ends = self.payloads.get("INDX", 0) + self.payloads.get("ENDS", 0)
        return SIGNATURE_BYTES + CHUNK_FRAME_BYTES * self.chunks + ends

    @property
    def header(self) -> int:
        """HEAD without the motion model: decoder id, steps, rates, names."""
        return self.payloads["HEAD"] - self.model


def sizes_of(data: bytes) -> Sizes:
    """Return the sizes in a file, which must be sound."""
    payloads: Counter[str] = Counter()
    chunks = 0
    for chunk in read_chunks(ByteSource(io.BytesIO(data))):
        payloads[chunk.type] += len(chunk.payload)
        chunks += 1
    reader = Reader(io.BytesIO(data))
    frames = len(reader.read_motion().values)
    return Sizes(len(data), dict(payloads), chunks, frames, model_bytes(reader.header.model))


@dataclass(frozen=True)
class MotionRow:
    """Bits a frame of one track under several coders."""

    name: str
    frames: int
    ours: float
    sei: float
    gfvc: float
    zstd: float
    still: float

    @property
    def saving(self) -> float:
        return 1 - self.ours / self.sei


def motion_row(name: str, values: Integers, data: bytes | None = None) -> MotionRow:
    """Measure one track of integers."""
    file = write_file(values) if data is None else data
    if data is None:
        back = Reader(io.BytesIO(file)).read_motion().values
        assert np.array_equal(back, values), "a measured file must give its integers back"
    frames = len(values)
    return MotionRow(
        name=name,
        frames=frames,
        ours=8 * sizes_of(file).motion / frames,
        sei=float(anchors.sei_bits(values).mean()),
        gfvc=float(anchors.gfvc_bits(values).mean()),
        zstd=anchors.zstd_bits(values) / frames,
        still=float((np.diff(values, axis=0) == 0).all(axis=1).mean()) if frames > 1 else 0.0,
    )


MOTION_FORM = "{} {} {:.1f} {:.1f} {:.1%} {:.1f} {:.1f} {:.0%}"
MOTION_COLUMNS = ("ours", "sei", "saving", "gfvc", "zstd", "still")


def motion_table(report: Report, rows: list[MotionRow]) -> dict[str, float]:
    """Add one line a clip and their means; return the mean of clips."""
    body, means = [], []
    for row in rows:
        body.append(
            cells(MOTION_FORM, row.name, row.frames, *(getattr(row, k) for k in MOTION_COLUMNS))
        )
    frames = np.array([row.frames for row in rows])
    for name, weight in (("**mean of clips**", np.ones(len(rows))), ("mean of frames", frames)):
        mean = {
            key: float(np.average([getattr(row, key) for row in rows], weights=weight))
            for key in MOTION_COLUMNS
        }
        body.append(cells(MOTION_FORM, name, int(frames.sum()), *mean.values()))
        means.append(mean)
    report.table(
        ["clip", "frames", "ours", "SEI style", "smaller by", "GFVC style", "zstd", "still frames"],
        body,
    )
    mean, by_frame = means
    return mean | {"by_frame": by_frame["ours"]}


def simulated(report: Report, clips: dict[str, tracks.Tracked]) -> dict[str, Integers]:
    """Measure both simulations; return the default integers of the first."""
    kinds = {"landmarks": tracks.landmark_tracks, "blendshapes": tracks.blendshape_tracks}
    chosen: dict[str, Integers] = {}
    for kind, make in kinds.items():
        made = make(clips)
        report.text(f"### Simulation: {kind}, default steps, bits a frame")
        rows = [motion_row(name, track.quantized()) for name, track in made.items()]
        mean = motion_table(report, rows)
        found = f"{mean['ours']:.1f} (weighted by frames {mean['by_frame']:.1f})"
        report.bar(f"motion, bits a frame, {kind}", "at most 40", found, mean["ours"] <= 40)
        worst = min(row.saving for row in rows)
        found = f"{mean['saving']:.1%} (worst clip {worst:.1%})"
        report.bar(f"against SEI style, {kind}", "30 % smaller", found, mean["saving"] >= 0.3)
        body = []
        for coarser in (0.5, 1.0, 2.0, 4.0):
            rows = [motion_row(name, track.quantized(coarser)) for name, track in made.items()]
            means = [np.mean([getattr(r, key) for r in rows]) for key in ("ours", "sei", "saving")]
            body.append(cells("{:g} {:.1f} {:.1f} {:.1%}", coarser, *means))
        report.text("Mean of clips with other steps:")
        report.table(["steps times", "ours", "SEI style", "smaller by"], body)
        chosen = chosen or {name: track.quantized() for name, track in made.items()}
    return chosen


def long_track(parts: dict[str, Integers], frames: int) -> Integers:
    """Return the clips one after the other, again and again, up to a length."""
    joined = np.concatenate(list(parts.values()))
    return np.concatenate([joined] * (frames // len(joined) + 1))[:frames]


def still_section(report: Report, some: Integers) -> None:
    """Measure a face that does not move."""
    body = []
    worst = 0.0
    for frames in (250, MINUTE, 10 * MINUTE):
        values = np.repeat(some[:1], frames, axis=0)
        bits = 8 * sizes_of(write_file(values)).motion
        worst = max(worst, bits / frames)
        inside = bits - 8 * sizes_of(write_file(values[:1])).motion
        body.append(cells("{} {:.2f} {:.2f}", frames, inside / (frames - 1), bits / frames))
    report.text(
        "## Still frames",
        "Bits of a frame in a file whose frames are all equal: without the first frame, and all "
        "told (a new group starts every 256 frames; from 500 frames on there is a motion model).",
    )
    report.table(["frames", "without the first", "all told"], body)
    report.bar("still frame, bits", "at most 2", f"{worst:.2f}", worst <= 2)


def latent_section(report: Report, path: Path | None, rng: np.random.Generator) -> None:
    """Measure layer 0."""
    report.text("## Identity, layer 0")
    if path is None:
        report.text(
            "No latents were given (`--latents`): independent Gaussians, no help to row prediction."
        )
        offsets = {"gaussian": rng.normal(scale=0.46, size=(12, 256)).astype(np.float32)}
        spread = np.full((12, 256), 0.46, np.float32)
    else:
        report.text("W+ codes of an inverter on one frame of each clip, minus the mean latent.")
        with np.load(path, allow_pickle=False) as file:
            mean, spread = file["mean"], file["std"]
            offsets = {name: file[name] - mean for name in file.files if name not in LATENT_FACTS}
    body, most = [], 0
    for name, offset in offsets.items():
        row: list[object] = [name, "x".join(map(str, offset.shape))]
        for tensor in (fit_latent(offset, LAYER_BYTES), quantize_tensor(offset, 0.1)):
            size = len(pack_layer_body(LatentLayer(latent=tensor)))
            error = float(np.sqrt(np.mean(((tensor.dequantize() - offset) / spread) ** 2)))
            row += [size, tensor.step, error]
        most = max(most, int(str(row[2])))
        body.append(cells("{} {} {} {:.3f} {:.3f} {} {:.2f} {:.3f}", *row))
    report.table(
        ["latent", "shape", "bytes, within budget", "step", "error", "bytes", "step", "error"], body
    )
    report.text("Error: RMS of value minus dequantized value, in standard deviations of the value.")
    report.bar(
        "ID latent, layer 0, bytes", f"at most {LAYER_BYTES}", f"{most}", most <= LAYER_BYTES
    )


LATENT_FACTS = ("mean", "std")


def overhead_section(report: Report, values: Integers, path: Path | None) -> None:
    """Measure what the container adds to a minute."""
    minute = values[:MINUTE]
    latent = fit_latent(_some_latent(path), LAYER_BYTES)
    base = Identity(layers=(LatentLayer(latent=latent),), neutral=np.zeros(34, np.float32))
    body, share = [], 0.0
    for name, identity in (
        ("layer_0_alone", base),
        ("20_kB_identity", replace(base, layers=(*base.layers, delta_layer(18_000)))),
    ):
        sizes = sizes_of(write_file(minute, identity))
        content = sizes.payloads["IDEN"] + sizes.payloads.get("LAYR", 0) + sizes.motion
        both = (sizes.total - content) / sizes.total
        frame = sizes.frame / sizes.total
        share = max(share, frame)
        numbers = sizes.total, content, sizes.frame, sizes.header, frame, both
        body.append(cells("{} {} {} {} {} {:.2%} {:.2%}", name.replace("_", " "), *numbers))
    report.text(
        "## Container overhead of a 60 s clip",
        "1500 frames, no sound. *Frame*: signature, chunk heads, checksums, INDX, ENDS. *Header*: "
        "HEAD without the motion model (decoder id 32 bytes, 34 steps 136 bytes, rates, names).",
    )
    report.table(
        ["file", "bytes", "identity + motion", "frame", "header", "frame", "frame + header"], body
    )
    smallest = body[0][-1]
    found = f"{share:.2%} (with all of HEAD {smallest})"
    report.bar("container overhead, 60 s, layer 0 alone", "at most 3 %", found, share <= 0.03)


def _some_latent(path: Path | None) -> NDArray[np.float32]:
    if path is None:
        return np.random.default_rng(0).normal(scale=0.46, size=(12, 256)).astype(np.float32)
    with np.load(path, allow_pickle=False) as file:
        name = next(n for n in file.files if n not in LATENT_FACTS)
        offset: NDArray[np.float32] = file[name] - file["mean"]
        return offset


def delta_layer(size_bytes: int) -> DeltaLayer:
    """Return low-rank deltas of about a size: Laplacian integers of about 3 bits each."""
    rng = np.random.default_rng(1)
    deltas, left = [], int(size_bytes * 8 / 2.9)
    number = 0
    while left > 0:
        rank = max(1, min(16, left // (256 + 2304)))
        a, b = (
            np.rint(rng.laplace(scale=1.0, size=s)).astype(np.int32)
            for s in ((256, rank), (rank, 2304))
        )
        deltas.append(
            LowRankDelta(
                name=f"layer{number}.weight",
                shape=(256, 256, 3, 3),
                left=QuantizedTensor(values=a, step=0.01),
                right=QuantizedTensor(values=b, step=0.01),
            )
        )
        left -= rank * (256 + 2304)
        number += 1
    return DeltaLayer(deltas=tuple(deltas))


def best_of(data: bytes, *, is_whole: bool, times: int = 5) -> tuple[float, float]:
    """Return the least CPU and wall seconds of reading a file some times."""
    cpu, wall = [], []
    for _ in range(times):
        start = time.process_time(), time.perf_counter()
        reader = Reader(io.BytesIO(data))
        frames = reader.read_all() if is_whole else list(reader.groups())
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
        assert frames
    return min(cpu), min(wall)


def speed_section(report: Report, values: Integers) -> None:
    """Measure reading time on one core."""
    track = write_file(values)
    identity = Identity(
        layers=(small_identity().layers[0], *(delta_layer(100_000) for _ in range(3))),
        neutral=np.zeros(34, np.float32),
    )
    person = write_file(values[:1], identity)
    Reader(io.BytesIO(track)).read_motion()  # tables are built once
    body = []
    for name, data, is_whole in (
        (f"{len(values)} frames at once", track, True),
        (f"{len(values)} frames, group by group", track, False),
        ("identity", person, True),
    ):
        cpu, wall = best_of(data, is_whole=is_whole)
        body.append([name, *cells("{} {:.2f} {:.2f}", len(data), cpu, wall)])
        if is_whole:
            report.bar(f"time to read {name}", "at most 2 s", f"{cpu:.2f} s of CPU", cpu <= 2)
    report.text(
        "## Time to read, one core",
        "Least of five runs; other work shares the machine, so that CPU time is what counts.",
    )
    report.table(["what", "bytes", "CPU s", "wall s"], body)


class Counting(io.BytesIO):
    """Remembers which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.spans: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        data = super().read(size)
        if data:
            self.spans.append((start, start + len(data)))
        return data


def seek_section(report: Report, values: Integers) -> None:
    """Count what a seek reads."""
    data = write_file(values)
    groups = {c.offset: len(c.payload) + CHUNK_FRAME_BYTES
              for c in read_chunks(ByteSource(io.BytesIO(data))) if c.type == "MOTN"}  # fmt: skip
    worst_groups = worst_bytes = 0
    opening = 0
    for second in range(0, len(values) // FPS, 7):
        file = Counting(data)
        seekable = SeekableFile(file)
        opening = sum(end - start for start, end in file.spans)
        file.spans.clear()
        motion = seekable.group_at_seconds(second)
        assert motion.first_frame <= second * FPS < motion.first_frame + len(motion.values)
        touched = {
            at for at, size in groups.items() for s, e in file.spans if s < at + size and e > at
        }
        worst_groups = max(worst_groups, len(touched))
        worst_bytes = max(worst_bytes, sum(end - start for start, end in file.spans))
    report.text(
        "## Seek",
        f"File of {len(data)} bytes, {len(groups)} groups; a seek to every seventh second. Opening "
        f"(header, end, index) reads {opening} bytes; each seek then reads at most "
        f"{worst_groups} group, {worst_bytes} bytes.",
    )
    report.bar("seek, groups read", "at most 1", str(worst_groups), worst_groups <= 1)


def real_files(report: Report, paths: list[Path]) -> None:
    """Measure files as they are."""
    report.text("## Real files, bits a frame")
    rows, body = [], []
    for path in paths:
        data = path.read_bytes()
        values = Reader(io.BytesIO(data)).read_motion().values
        rows.append(motion_row(path.name, values, data))
        sizes = sizes_of(data)
        audio = sizes.payloads.get("APKT", 0) + sizes.payloads.get("AHDR", 0)
        people = sizes.payloads.get("IDEN", 0) + sizes.payloads.get("LAYR", 0)
        numbers = [sizes.total, people, *(sizes.payloads.get(k, 0) for k in ("IDEN", "PLAC"))]
        numbers += [sizes.motion, audio, sizes.frame]
        share = sizes.frame / sizes.total
        body.append([path.name, *cells("{} {} {} {} {} {} {} {:.2%}", *numbers, share)])
    mean = motion_table(report, rows)
    report.table(
        ["file", "bytes", "identity", "layer 0", "placement", "motion", "sound", "frame", "frame"],
        body,
    )
    found = f"{mean['ours']:.1f} (weighted by frames {mean['by_frame']:.1f})"
    report.bar("motion, bits a frame, real files", "at most 40", found, mean["ours"] <= 40)
    is_met = mean["saving"] >= 0.3
    report.bar("against SEI style, real files", "30 % smaller", f"{mean['saving']:.1%}", is_met)


def machine() -> str:
    """Return what the figures were measured on."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    parts = (
        f"{os.cpu_count()}-core {platform.machine()}",
        f"CPython {platform.python_version()}",
        f"numpy {np.__version__}",
        f"commit {commit or 'unknown'}",
    )
    return ", ".join(parts)


INTRODUCTION = """# Rate figures

Written by `sglat_lab.bench.rate`; do not edit by hand. {machine}.

*Ours* counts the motion groups with their heads and the motion model in the header; nothing is
trained on the clips but that model, which travels in the file. *GFV SEI style*: difference to the
frame before, 0-order Exp-Golomb, sign. *GFVC style*: Exp-Golomb bits through an adaptive coder that
starts anew and is flushed to bytes in each frame. *zstd*: differences as int16 byte planes, level
19. All coders get the same integers. Ten seconds of motion at 40 bits a frame are 1250 bytes.
"""

SIMULATION = """## Motion

**Simulated.** No real encodes were measured in this section. A face landmarker watched every frame
of six real clips; 34 channels were derived from it (`sglat_lab.bench.motion_tracks`, which states
every choice). The step of a control at the default quality moves its region by 0.3 px RMS at 128
px, so that rounding moves it by at most 0.15 px; in the second simulation it is 1/32 of a
blendshape's range. The landmarker works in video mode and smooths over time, so real encodes may be
noisier and cost more. Plain rounding; no encoder-side smoothing. Two clips (d6, d10) are grimaces
from start to end, far from ordinary talk; d6 is 39 % of all frames, so that the mean of frames lies
above the mean of clips.
"""


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="measure what .sglat files cost")
    parser.add_argument("files", nargs="*", type=Path, help="real .sglat files")
    parser.add_argument("--clips", type=Path, help="folder of clips for the simulation")
    parser.add_argument("--landmarker", type=Path, help="MediaPipe FaceLandmarker task file")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache/motion"), help="tracked points of the clips"
    )
    parser.add_argument("--latents", type=Path, help="npz with mean, std and one W+ code per name")
    parser.add_argument("--out", type=Path, help="write the report there instead of to stdout")
    options = parser.parse_args()
    if not options.files and options.clips is None:
        parser.error("give real files, --clips, or both")
    report = Report()
    report.text(INTRODUCTION.format(machine=machine()).rstrip())
    if options.files:
        real_files(report, options.files)
    if options.clips is not None:
        report.text(SIMULATION.rstrip())
        parts = simulated(
            report, tracks.load_or_track(options.clips, options.landmarker, options.cache)
        )
    else:
        parts = {p.name: Reader(p.open("rb")).read_motion().values for p in options.files}
    long = long_track(parts, 10 * MINUTE)
    still_section(report, long)
    latent_section(report, options.latents, np.random.default_rng(0))
    overhead_section(report, long, options.latents)
    speed_section(report, long)
    seek_section(report, long)
    introduction, *rest = report.lines
    summary = Report([introduction, ""])
    summary.text("## Bars")
    summary.table(["figure", "bar", "found", ""], report.bars)
    text = "\n".join([*summary.lines, *rest[1:]])
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text.rstrip() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
