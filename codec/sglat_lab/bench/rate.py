"""Bytes of `.sglat` files and of their parts, against targets.

    python -m sglat_lab.bench.rate --clips ../shared/clips --landmarker FILE.task \
        --cache .cache/motion
    python -m sglat_lab.bench.rate real1.sglat real2.sglat

The first form needs mediapipe and measures simulated motion (see `motion_tracks.py`); the second
measures real files. Both can be given together. `--out FILE.md` writes the page, and its record
beside it as FILE.json.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.chunks import ByteSource, read_chunks
from sglat.bitstream.constants import CHUNK_FRAME_BYTES
from sglat.bitstream.info import describe, stream_bytes
from sglat.bitstream.layers import pack_layer_body
from sglat.bitstream.motion_coder import model_bytes
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import Identity, LatentLayer, QuantizedTensor
from sglat.bitstream.seek import SeekableFile
from sglat_lab.bench.motion_tracks import (
    FPS,
    LATENT_SHAPE,
    Track,
    blendshape_tracks,
    delta_layer,
    landmark_tracks,
    small_identity,
    write_file,
)
from sglat_lab.measure.landmarks import Tracked, tracked_video
from sglat_lab.measure.rates import Integers, gfvc_bits, sei_bits, zstd_bits
from sglat_lab.report.pages import page, provenance, targets, write_page

Float32 = NDArray[np.float32]
Record = dict[str, Any]
MINUTE: Final = 60 * FPS
LAYER_BYTES: Final = 2000  # target of layer 0
LATENT_SCALE: Final = 0.46  # standard deviation of latents around their mean
LATENT_FACTS: Final = ("mean", "std")
COARSER: Final = (0.5, 1.0, 2.0, 4.0)
SEARCH_STEPS: Final = 32  # halvings; the step is then exact to its last bit
MOTION_KEYS: Final = ("ours", "sei", "saving", "gfvc", "zstd", "still")


def sizes_of(data: bytes) -> dict[str, int]:
    """Return the bytes of a file's parts.

    `motion` counts the groups with their heads and the motion model in HEAD; `frame` what only the
    container needs (signature, chunk heads, checksums, index, end); `header` HEAD without the
    model, with provenance and metadata.
    """
    found = describe(io.BytesIO(data))
    sizes, frame = stream_bytes(found), found["container_bytes"]
    model = model_bytes(Reader(io.BytesIO(data)).header.model)
    return {
        "bytes": sizes["total"],
        "identity": sizes["identity"],
        "layer_0": found["chunks"].get("IDEN", {}).get("bytes", 0),
        "placement": sizes["placement"],
        "motion": sizes["motion"] + model,
        "sound": sizes["audio"],
        "header": sizes["container"] - frame - model,
        "frame": frame,
    }


def motion_row(values: Integers, data: bytes | None = None) -> Record:
    """Return bits a frame of one track of integers under several coders."""
    file = write_file(values) if data is None else data
    if data is None:
        back = Reader(io.BytesIO(file)).read_motion().values
        assert np.array_equal(back, values), "a measured file must give its integers back"
    frames = len(values)
    ours, sei = 8 * sizes_of(file)["motion"] / frames, float(sei_bits(values).mean())
    still = float((np.diff(values, axis=0) == 0).all(axis=1).mean()) if frames > 1 else 0.0
    return {
        "frames": frames, "ours": ours, "sei": sei, "saving": 1 - ours / sei,
        "gfvc": float(gfvc_bits(values).mean()), "zstd": zstd_bits(values) / frames, "still": still,
    }  # fmt: skip


def motion_means(rows: dict[str, Record]) -> Record:
    """Return the rows with their means over clips and over frames, and the worst saving."""
    frames = np.array([row["frames"] for row in rows.values()])

    def mean(weights: NDArray[Any]) -> Record:
        found = {
            key: float(np.average([row[key] for row in rows.values()], weights=weights))
            for key in MOTION_KEYS
        }
        return {"frames": int(frames.sum()), "saving_percent": 100 * found["saving"], **found}

    return {
        "clips": rows,
        "mean": mean(np.ones(len(rows))),
        "mean_of_frames": mean(frames),
        "worst_saving": min(row["saving"] for row in rows.values()),
    }


def real_probe(paths: Sequence[Path]) -> Record:
    """Measure files as they are."""
    rows, sizes = {}, {}
    for path in paths:
        data = path.read_bytes()
        values = Reader(io.BytesIO(data)).read_motion().values
        rows[path.name], sizes[path.name] = motion_row(values, data), sizes_of(data)
    return motion_means(rows) | {"sizes": sizes}


def simulation_probe(made: dict[str, Track]) -> Record:
    """Measure one simulation at its default steps, and the mean of clips at other steps."""
    found = motion_means({name: motion_row(track.quantized()) for name, track in made.items()})
    found["steps"] = []
    for coarser in COARSER:
        rows = [motion_row(track.quantized(coarser)) for track in made.values()]
        means = {k: float(np.mean([row[k] for row in rows])) for k in ("ours", "sei", "saving")}
        found["steps"].append({"factor": coarser, **means})
    return found


def still_probe(some: Integers) -> Record:
    """Measure a face that does not move."""
    rows: list[Record] = []
    for frames in (250, MINUTE, 10 * MINUTE):
        values = np.repeat(some[:1], frames, axis=0)
        bits, first = (8 * sizes_of(write_file(part))["motion"] for part in (values, values[:1]))
        rows.append(
            {"frames": frames, "inside": (bits - first) / (frames - 1), "all": bits / frames}
        )
    return {"rows": rows, "worst": max(row["all"] for row in rows)}


def read_latents(path: Path | None) -> tuple[dict[str, Float32], Float32]:
    """Return latent offsets by name and their standard deviation; without a file, a Gaussian."""
    if path is None:
        values = np.random.default_rng(0).normal(scale=LATENT_SCALE, size=LATENT_SHAPE)
        return {"gaussian": values.astype(np.float32)}, np.full(LATENT_SHAPE, LATENT_SCALE, "f4")
    with np.load(path, allow_pickle=False) as file:
        names = [name for name in file.files if name not in LATENT_FACTS]
        return {name: file[name] - file["mean"] for name in names}, file["std"]


def quantized(values: Float32, step: float) -> tuple[QuantizedTensor, int]:
    """Return the nearest integers and the bytes of their layer."""
    exact = float(np.float32(step))
    integers = np.rint(values.astype(np.float64) / exact).astype(np.int32)
    tensor = QuantizedTensor(values=integers, step=exact)
    return tensor, len(pack_layer_body(LatentLayer(latent=tensor)))


def fit_latent(offset: Float32, budget_bytes: int) -> tuple[QuantizedTensor, int]:
    """Return a latent offset `[L, D]` with the finest step whose layer fits a budget."""
    peak = max(float(np.abs(offset).max()), 1e-6)
    coarse, fine = np.log2(4 * peak), np.log2(peak) - 18
    best = quantized(offset, 2.0**coarse)
    for _ in range(SEARCH_STEPS):
        middle = (coarse + fine) / 2
        made = quantized(offset, 2.0**middle)
        if made[1] <= budget_bytes:
            best, coarse = made, middle
        else:
            fine = middle
    return best


def latent_probe(path: Path | None) -> Record:
    """Measure layer 0: within its budget, and with a step of 0.1."""
    offsets, spread = read_latents(path)
    rows = []
    for name, offset in offsets.items():
        row: Record = {"name": name, "shape": "x".join(map(str, offset.shape))}
        for key, (tensor, size) in (("within", fit_latent(offset, LAYER_BYTES)),
                                    ("coarse", quantized(offset, 0.1))):  # fmt: skip
            error = float(np.sqrt(np.mean(((tensor.dequantize() - offset) / spread) ** 2)))
            row[key] = {"bytes": size, "step": tensor.step, "error": error}
        rows.append(row)
    return {
        "is_real": path is not None,
        "rows": rows,
        "most_bytes": max(row["within"]["bytes"] for row in rows),
    }


def overhead_probe(values: Integers, latents: Path | None) -> Record:
    """Measure what the container adds to a minute."""
    latent, _ = fit_latent(next(iter(read_latents(latents)[0].values())), LAYER_BYTES)
    base = Identity(layers=(LatentLayer(latent=latent),), neutral=np.zeros(34, np.float32))
    rows: list[Record] = []
    for name, identity in (
        ("layer 0 alone", base),
        ("20 kB identity", replace(base, layers=(*base.layers, delta_layer(18_000)))),
    ):
        sizes = sizes_of(write_file(values[:MINUTE], identity))
        total, content = sizes["bytes"], sizes["identity"] + sizes["motion"]
        rows.append({
            "file": name, "bytes": total, "content": content, "frame": sizes["frame"],
            "header": sizes["header"], "frame_percent": 100 * sizes["frame"] / total,
            "both_percent": 100 * (total - content) / total,
        })  # fmt: skip
    return {"rows": rows, "frame_percent": max(row["frame_percent"] for row in rows)}


def speed_probe(values: Integers) -> Record:
    """Measure reading time on one core: the least of five runs."""
    track = write_file(values)
    layers = (small_identity().layers[0], *(delta_layer(100_000) for _ in range(3)))
    person = write_file(values[:1], Identity(layers=layers, neutral=np.zeros(34, np.float32)))
    Reader(io.BytesIO(track)).read_motion()  # tables are built once
    rows = {}
    for name, data, is_whole in (
        (f"{len(values)} frames at once", track, True),
        (f"{len(values)} frames, group by group", track, False),
        ("identity", person, True),
    ):
        times = []
        for _ in range(5):
            start = time.process_time(), time.perf_counter()
            reader = Reader(io.BytesIO(data))
            assert reader.read_all() if is_whole else list(reader.groups())
            times.append((time.process_time() - start[0], time.perf_counter() - start[1]))
        cpu, wall = (min(column) for column in zip(*times, strict=True))
        rows[name] = {"bytes": len(data), "cpu_seconds": cpu, "wall_seconds": wall}
    return rows


class Counting(io.BytesIO):
    """Remembers which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.spans: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        """Return bytes; note where they lie."""
        start = self.tell()
        data = super().read(size)
        if data:
            self.spans.append((start, start + len(data)))
        return data


def seek_probe(values: Integers) -> Record:
    """Count what a seek to every seventh second reads."""
    data = write_file(values)
    groups = {c.offset: len(c.payload) + CHUNK_FRAME_BYTES
              for c in read_chunks(ByteSource(io.BytesIO(data))) if c.type == "MOTN"}  # fmt: skip
    worst_groups = worst_bytes = opening = 0
    for second in range(0, len(values) // FPS, 7):
        file = Counting(data)
        seekable = SeekableFile(file)
        opening = sum(end - start for start, end in file.spans)
        file.spans.clear()
        motion = seekable.group_at_ticks(int(second / seekable.header.time_base))
        assert motion.first_frame <= second * FPS < motion.first_frame + len(motion.values)
        touched = {
            at for at, size in groups.items() for s, e in file.spans if s < at + size and e > at
        }
        worst_groups = max(worst_groups, len(touched))
        worst_bytes = max(worst_bytes, sum(end - start for start, end in file.spans))
    return {"file_bytes": len(data), "groups": len(groups), "opening_bytes": opening,
            "seek_groups": worst_groups, "seek_bytes": worst_bytes}  # fmt: skip


def wanted(record: Record) -> list[Record]:
    """Return what is wanted of the figures that a record has."""
    kinds = {"real": "real files"} if "real" in record else {}
    kinds |= {f"simulated/{kind}": kind for kind in record.get("simulated", {})}
    return targets("rate", kinds=kinds, reading=record["reading"])


def measure(files: Sequence[Path], clips: dict[str, Tracked], latents: Path | None) -> Record:
    """Return the record of all sections for which there is material."""
    record: Record = {}
    if files:
        record["real"] = real_probe(files)
    if clips:
        made = {"landmarks": landmark_tracks(clips)}
        made["blendshapes"] = blendshape_tracks(clips)
        record["simulated"] = {kind: simulation_probe(track) for kind, track in made.items()}
        parts = [track.quantized() for track in made["landmarks"].values()]
    else:
        parts = [Reader(io.BytesIO(p.read_bytes())).read_motion().values for p in files]
    joined = np.concatenate(parts)
    long = np.concatenate([joined] * (10 * MINUTE // len(joined) + 1))[: 10 * MINUTE]
    record |= {
        "still": still_probe(long),
        "latents": latent_probe(latents),
        "overhead": overhead_probe(long, latents),
        "reading": speed_probe(long),
        "seek": seek_probe(long),
    }
    record["targets"] = wanted(record)
    return record


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
    parser.add_argument("--out", type=Path, help="write the page there instead of to stdout")
    options = parser.parse_args()
    if not options.files and options.clips is None:
        parser.error("give real files, --clips, or both")
    run = provenance("python -m sglat_lab.bench.rate")
    paths = [] if options.clips is None else sorted(options.clips.glob("*.mp4"))
    clips = {p.stem: tracked_video(p, options.landmarker, options.cache) for p in paths}
    record = measure(options.files, clips, options.latents) | {"runs": [run]}
    if options.out is None:
        print(page("rate", record))
    else:
        write_page(options.out, record, "rate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
