"""The codec at every resolution of a file: against its 128 px picture enlarged, and the anchors.

    python -m sglat_lab.bench.rungs CLIPS OUT [--encoded FOLDER] [CLIP ...]

FOLDER is where `sglat_lab.bench.clips` left its files; without it every clip is encoded here.
Finished parts are kept in OUT, so an interrupted run continues. Writes OUT/rungs.json and
OUT/rungs.md with every figure beside its target, and a contact sheet for each clip at its largest
resolution (source, ours, the best anchor at our rate, ours at the lowest resolution enlarged).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import sglat
from sglat.bitstream.info import describe
from sglat.bitstream.reader import load_identity
from sglat.bitstream.records import FRAME_HELD
from sglat.decoder.decode import Decoder
from sglat.decoder.placement import SIZE
from sglat.encoder.config import EncodeConfig
from sglat.errors import UsageError
from sglat.files import write_atomically
from sglat.networks.pixels import from_pixels, resize, to_pixels
from sglat_lab.bench.clip_bench import FULL, ClipBench, Effort
from sglat_lab.bench.clips import spread_rows
from sglat_lab.bench.file_variants import decoded_rows
from sglat_lab.bench.harness import Cache, ToolConfig, digest
from sglat_lab.bench.long_decode import decode_memory
from sglat_lab.bench.probes import Tools
from sglat_lab.bench.run import clip_paths
from sglat_lab.measure.judges import BATCH
from sglat_lab.measure.picture_metrics import change_figures, means, measure_pictures
from sglat_lab.measure.rates import MINUTE
from sglat_lab.report.pages import Record, provenance, targets, write_page
from sglat_lab.report.plots import telling_frames, write_sheet

Pictures = NDArray[np.uint8]
METRIC_NAMES: Final = ("psnr", "perceptual", "identity_loss")
RATIOS: Final = ("perceptual_face", "perceptual", "identity_loss", "change_error")
DIFFERENCES: Final = ("psnr_face", "psnr")
WON_IN: Final = ("perceptual_face", "identity_loss")
"""Lower is better; an anchor is beaten in all of them."""
THREADS: Final = (2, 1)
LEAST_NAMED: Final = 512  # pixels of a column that has room for the names of the rows


@dataclass(frozen=True, kw_only=True)
class RungClip:
    """One source video, its file, and how much is measured."""

    video: Path
    out: Path
    encoded: Path
    """Folder of `<clip>.sglat` and `<clip>.json`."""
    steps: int | None = None
    """Tuning steps; None: the encoder's default."""
    threads: int | None = None
    """Of the encoder."""
    effort: Effort = FULL
    decoded_frames: int = 300
    """Least frames of a decode that is timed; shorter files are repeated."""

    @property
    def file(self) -> Path:
        """The encoded file."""
        return self.encoded / f"{self.video.stem}.sglat"


@dataclass(kw_only=True)
class RungBench(ClipBench):
    """The measurements of one clip at the rung that the bundle is opened at."""

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Frames of the picture metrics: evenly spread ones with a face."""
        flags, count = self.parsed.motion.flags, len(self.parsed.motion.values)
        is_held = np.zeros(count, bool) if flags is None else (flags & FRAME_HELD) > 0
        return spread_rows(is_held, self.effort.frames)

    def picture_figures(self, shown: Pictures) -> dict[str, float]:
        """Return the mean of few metrics of crops at `rows`, `[N, R, R, 3]`."""
        return means(measure_pictures(shown, self.reference, self.judges, names=METRIC_NAMES))

    def time_figures(self, window: Pictures) -> dict[str, float]:
        """Return how the changes of the first crops, `[window, R, R, 3]`, follow the source's."""
        return change_figures(window, self.source[: self.window])

    def enlarged(self, lowest: RungBench) -> dict[str, float]:
        """Return the figures of our crops at the lowest rung, enlarged to this one."""

        def make() -> dict[str, float]:
            shown, window = (
                enlarge(part(self.encoded, "ours"), self.bundle.resolution)
                for part in (lowest.shown, lowest.shown_window)
            )
            return self.picture_figures(shown) | self.time_figures(window)

        figures: dict[str, float] = self.cache.record("enlarged", make)
        return figures


def enlarge(pictures: Pictures, side: int) -> Pictures:
    """Return pictures `[N, H, W, 3]` at a larger side, bicubic as the decoder enlarges."""
    parts = [
        to_pixels(resize(from_pixels(pictures[at : at + BATCH]), side))
        for at in range(0, len(pictures), BATCH)
    ]
    return np.concatenate(parts)


def benches(clip: RungClip, tools: Tools) -> list[RungBench]:
    """Return the benches of a clip at all resolutions that its file has, ascending."""
    with clip.file.open("rb") as file:
        sizes = Decoder(file, bundle=tools.bundle).rungs
    return [
        RungBench(
            video=clip.video, encoded=clip.file, bundle=tools.bundle.at(size), judges=tools.judges,
            landmarker=tools.any_landmarker, effort=clip.effort, folder=clip.out / "cache",
        )
        for size in sizes
    ]  # fmt: skip


def encode_probe(clip: RungClip, tools: Tools) -> Record:
    """Return the cost of a clip's file, which is encoded first where it goes to `clip.out`.

    Raises:
        UsageError: there is no file in the folder of files made earlier.
    """
    known = clip.file.with_suffix(".json")
    if not clip.file.exists():
        if clip.encoded != clip.out:
            raise UsageError(
                "not-encoded",
                f"expected {clip.file}, found none; encode it, or leave out --encoded",
            )
        config = EncodeConfig(
            bundle=tools.config.bundle, tune_steps=clip.steps, threads=clip.threads, device="cpu",
            workfile=clip.out / f"{clip.video.stem}.work", keep_workfile=True,
        )  # fmt: skip
        made = sglat.encode(clip.video, clip.file, config).to_json()
        write_atomically(known, json.dumps(made))
    record = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    with clip.file.open("rb") as file:
        found = describe(file)
    lowest, *_ = all_benches = benches(clip, tools)
    placement = lowest.parsed.placement
    by_size = dict.fromkeys(["latent", *(str(one.bundle.resolution) for one in all_benches)], 0)
    for layer in found["identity"]["layers"]:
        size = max(layer.get("resolution") or 0, lowest.bundle.resolution)
        by_size["latent" if layer["kind"] == "latent" else str(size)] += layer["bytes"]
    stages: dict[str, float] = record.get("stage_seconds", {})
    return {
        "frames": found["motion"]["frames"],
        "resolution": found["resolution"],
        "source_crop_pixels": None
        if placement is None
        else float(np.median(placement.dequantize()[:, SIZE])),
        "bytes_by_size": by_size,
        "identity_kilobytes": found["identity"]["bytes"] / 1000,
        "kbit_per_second_60s": lowest.cost.first_view(MINUTE),
        "kbit_per_second_cached": lowest.cost.cached,
        "encode_seconds": sum(stages.values()) or None,
        "seconds_per_frame": record.get("seconds_per_frame"),
        "stage_seconds": stages,
    }


def rungs_probe(clip: RungClip, tools: Tools) -> Record:
    """Return the figures of a clip at every resolution, and write its contact sheet."""
    found: Record = {}
    all_benches = benches(clip, tools)
    for bench in all_benches:
        found[str(bench.bundle.resolution)] = rung_figures(bench, all_benches[0], tools)
    return {"rungs": found, "sheet": write_rung_sheet(clip, all_benches, found, tools)}


def rung_figures(bench: RungBench, lowest: RungBench, tools: Tools) -> Record:
    """Return ours, the lowest rung enlarged, their ratios, and the anchors at our rate."""
    ours = bench.ours()
    anchors: Record = {}
    for codec in tools.anchors:
        level, version = bench.match(codec, ours.cost.first_view(MINUTE))
        anchors[codec.name] = version.to_json() | {
            "level": level, "is_beaten": is_beaten(ours.figures, version.figures),
        }  # fmt: skip
    found: Record = {
        "frames_measured": len(bench.rows),
        "window": bench.window,
        "ours": ours.figures,
        "anchors": anchors,
        "beaten": sum(one["is_beaten"] for one in anchors.values())
        if any(key in ours.figures for key in WON_IN)
        else None,
    }
    if bench is not lowest:
        other = bench.enlarged(lowest)
        pairs = {key: (ours.figures[key], other[key]) for key in other if key in ours.figures}
        found["enlarged"] = other
        found["ratio"] = {
            key: pairs[key][0] / pairs[key][1] for key in RATIOS if key in pairs and pairs[key][1]
        }
        found["gain"] = {key: pairs[key][0] - pairs[key][1] for key in DIFFERENCES if key in pairs}
    return found


def is_beaten(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Return whether ours is better in all measured figures that decide; not if none is."""
    keys = [key for key in WON_IN if key in ours and key in theirs]
    return bool(keys) and all(ours[key] < theirs[key] for key in keys)


def moments(bench: RungBench) -> dict[str, int]:
    """Return the frames of a contact sheet: the ID frame and extremes of the source's motion."""
    extremes = dict(telling_frames(bench.signals))
    neutral = load_identity(bench.encoded).id_frame or 0
    yaw = bench.signals.pose[:, 0]
    sides = [extremes["yaw +"], extremes["yaw -"]]
    turn = max(sides, key=lambda at: abs(float(yaw[at] - np.nanmedian(yaw))))
    return {
        "neutral": neutral,
        "mouth": extremes["mouth open"],
        "blink": extremes["eyes shut"],
        "turn": turn,
    }


def write_rung_sheet(
    clip: RungClip, all_benches: list[RungBench], found: Record, tools: Tools
) -> Record:
    """Write source, ours, the best anchor and the lowest rung enlarged, at the largest rung.

    Returns:
        Names of its `rows`, and the frames of its columns, `moments`.
    """
    lowest, top = all_benches[0], all_benches[-1]
    chosen = moments(lowest)
    rows = np.array(sorted(set(chosen.values())), np.int64)
    at = [int(np.searchsorted(rows, row)) for row in chosen.values()]
    side, folder = top.bundle.resolution, top.cache.folder
    ours, small = (
        decoded_rows(clip.file, bench.bundle, rows, folder)[at] for bench in (top, lowest)
    )
    rate = top.cost.first_view(MINUTE)
    lines = {"source": top.source[rows][at], f"ours at {rate:.1f} kbit/s": ours}
    anchors = found[str(side)]["anchors"]
    if anchors:
        key = WON_IN[0] if tools.judges.perceptual is not None else "psnr"
        sign = 1 if key in WON_IN else -1
        best = min(anchors, key=lambda name: sign * anchors[name]["figures"][key])
        codec = next(codec for codec in tools.anchors if codec.name == best)
        shown = top.anchor_pictures(codec, anchors[best]["level"], rows)[at]
        lines[f"{best} at {anchors[best]['kbit_per_second_60s']:.1f} kbit/s"] = shown
    lines[f"{lowest.bundle.resolution} px enlarged"] = enlarge(small, side)
    names = [f"{name} {row}" for name, row in chosen.items()]
    if side >= LEAST_NAMED:
        names[0] += f" (rows: {', '.join(lines)})"
    write_sheet(clip.out / f"{clip.video.stem}_rungs.png", list(lines.values()), names)
    return {"rows": list(lines), "moments": chosen}


def decode_probe(clip: RungClip, tools: Tools) -> Record:
    """Return the speed of decoding into H.264 at the lowest and the largest resolution."""
    found: Record = {}
    sides = [bench.bundle.resolution for bench in benches(clip, tools)]
    for side in sorted({sides[0], sides[-1]}):
        found[str(side)] = {}
        for threads in THREADS:
            (record,) = decode_memory(
                clip.file, tools.config.bundle, [clip.decoded_frames], clip.out, threads=threads,
                is_video=True, size=side,
            )  # fmt: skip
            found[str(side)][f"threads_{threads}"] = record
    return {"decode": found}


Probe = Callable[[RungClip, Tools], Record]
PROBES: Final[dict[str, Probe]] = {"rungs": rungs_probe, "decode": decode_probe}
"""Of an encoded clip."""


def mean_of(records: Iterable[Any]) -> Any:
    """Return the mean of each number over the records that have it; other values are left out."""
    known = list(records)
    if all(isinstance(one, dict) for one in known):
        keys = dict.fromkeys(key for one in known for key in one)
        means_of = {key: mean_of([one[key] for one in known if key in one]) for key in keys}
        return {key: value for key, value in means_of.items() if value is not None}
    numbers = [one for one in known if isinstance(one, int | float) and not isinstance(one, bool)]
    return fmean(numbers) if numbers else None


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="clips by name; default: all")
    parser.add_argument("--encoded", type=Path, help="OUT of `sglat_lab.bench.clips`")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--steps", type=int, help="tuning steps; default: the encoder's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int, default=24, help="of picture metrics, a clip")
    parser.add_argument("--window", type=int, default=100, help="frames of measures over time")
    parser.add_argument("--decoded-frames", type=int, default=300, help="of a timed decode")
    parser.add_argument("--skip-decode", action="store_true", help="no timed decoding")
    parser.add_argument("--teachers", type=Path, help="folder of the measuring networks")
    parser.add_argument("--heads", type=Path, help="squeeze.pth of the lpips package")
    return parser.parse_args()


def run(args: argparse.Namespace, tools: Tools) -> Record:
    """Measure all clips; what is done already is read from OUT."""
    kept = Cache(args.out)
    records: dict[str, Record] = {}
    for video in clip_paths(args.clips):
        if args.names and video.stem not in args.names:
            continue
        print(video.stem, flush=True)
        clip = RungClip(
            video=video, out=args.out, encoded=args.encoded or args.out, steps=args.steps,
            threads=args.threads, effort=Effort(frames=args.frames, window=args.window),
            decoded_frames=args.decoded_frames,
        )  # fmt: skip
        found = encode_probe(clip, tools)
        anchors = [codec.name for codec in tools.anchors]
        key = digest(clip.file, clip.effort, clip.decoded_frames, anchors)
        for name, probe in PROBES.items():
            if name != "decode" or not args.skip_decode:
                found |= kept.record(f"{video.stem}.{name}-{key}", partial(probe, clip, tools))
        records[video.stem] = found
    if not records:
        raise UsageError(
            "no-clips", f"expected {', '.join(args.names)} in {args.clips}, found none"
        )
    sizes = sorted({int(size) for record in records.values() for size in record["rungs"]})
    return {"clips": records, "mean": mean_of(records.values()), "sizes": sizes}


def main() -> None:
    """Run over all clips."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = ToolConfig(out=args.out, bundle=args.bundle, teachers=args.teachers, heads=args.heads)
    run_facts = provenance("python -m sglat_lab.bench.rungs")
    with Tools(config) as tools:
        record: Record = run(args, tools) | {
            "decoder_id": tools.bundle.decoder_id.hex(),
            "perceptual": tools.judges.perceptual and tools.judges.perceptual.name,
            "signals_by": tools.any_landmarker.name,
            "anchors": [codec.name for codec in tools.anchors],
            "frames": args.frames,
            "window": args.window,
        }
    record["targets"] = targets("rungs", sizes=record["sizes"])
    record["runs"] = [run_facts]
    print(write_page(args.out / "rungs.md", record))


if __name__ == "__main__":
    main()
