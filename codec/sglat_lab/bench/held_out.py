"""Pictures of a tuned person at frames that were not tuned on, at any size of identity.

    python -m sglat_lab.bench.held_out CLIPS OUT --works FOLDER [CLIP ...] [--identity-bytes 600000]

tunes on 16 frames of each whole clip as the encoder does on more, fits the 34 numbers of frames
evenly spread over the others, and compares the pictures with the source. The numbers are the best
that the solver finds: each frame by itself, with a Jacobian of its own and more steps than the
encoder takes, and not rounded. FOLDER is where `sglat_lab.bench.clips` left its work files, whose
first stages are used. Results are kept in OUT, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sglat.encoder.analysis import Analysis, analyse, begin
from sglat.encoder.config import EncodeConfig
from sglat.encoder.gauss_newton import SolverConfig
from sglat.encoder.solve_motion import FastConfig, solve_motion
from sglat.encoder.stages import Made, Runner
from sglat.encoder.workfile import WorkFile, config_hash
from sglat.encoder.write import identity_size
from sglat.files import write_atomically
from sglat.networks.pixels import to_pixels
from sglat_lab.bench.encodes import share_stages
from sglat_lab.bench.harness import Cache
from sglat_lab.bench.mini import Measured
from sglat_lab.measure.judges import Judges, find_teachers, load_judges
from sglat_lab.report.pages import average, part, provenance, targets
from sglat_lab.report.plots import write_sheet

BATCH = 8
SHOWN = 12  # frames on the sheet
FIGURES = ("psnr", "perceptual", "identity")
# Frames far from each other do not help each other, as neighbours in a film do
ALONE = SolverConfig(window=6, fresh=6, fresh_iterations=8)


def rows_between(made: Analysis, count: int) -> list[int]:
    """Return frames that were seen and not tuned on, evenly spread."""
    tuned, held = set(made.chosen.value), made.tracked.value.held
    others = [int(i) for i in np.flatnonzero(~held) if int(i) not in tuned]
    return [others[i] for i in np.linspace(0, len(others) - 1, min(count, len(others))).astype(int)]


def shown_at(made: Analysis, rows: list[int], run: Runner) -> np.ndarray:
    """Return pictures `[N, R, R, 3]` of frames whose numbers are fitted each by itself."""
    crops = made.aligned.value.crops.tensor(rows)
    whole = made.problem.value
    some = replace(
        whole,
        start=whole.start[rows],
        points=whole.points[rows],
        breaks=np.ones(len(rows), bool),  # no frame is the next one's neighbour
        shown=np.arange(len(rows)),
        targets=lambda numbers: crops[torch.from_numpy(numbers)],
    )
    problem = Made(value=some, key=config_hash(made.problem.key, rows))
    solved = solve_motion(run, made.person, problem, FastConfig(solver=ALONE)).value
    with torch.no_grad():
        parts = torch.from_numpy(solved.motion).split(BATCH)
        return np.concatenate([to_pixels(made.person.value.render(part)) for part in parts])


def measure(clip: Path, args: argparse.Namespace, judges: Judges) -> dict[str, Any]:
    """Tune and fit a clip; writes a sheet of source and picture."""
    work = args.out / f"{clip.stem}.work"
    share_stages(args.works / f"{clip.stem}.work", work)
    config = EncodeConfig(
        tune_steps=args.steps, threads=args.threads, keep_workfile=True, device="cpu",
        identity_bytes=args.identity_bytes, tune_frames=args.tune_frames,
    )  # fmt: skip
    run = begin(clip, work, config)
    config = replace(config, resolution=run.bundle.resolution)  # no layer above the lowest rung
    made = analyse(run, clip, config)
    measured = Measured(bundle=run.bundle, judges=judges, out=args.out)
    chosen = made.chosen.value
    found: dict[str, Any] = {
        "frames": len(made.tracked.value), "tuned_frames": len(chosen),
        "identity_kilobytes": identity_size(made.person.value.identity) / 1000,
    }  # fmt: skip
    for name, rows in (("others", rows_between(made, args.frames)), ("tuned", chosen)):
        fit = WorkFile(args.out / f"{clip.stem}_{name}.work", source=run.work.source)
        shown = shown_at(made, rows, Runner(run.bundle, fit))
        source = np.concatenate([to_pixels(p[None]) for p in made.aligned.value.crops.tensor(rows)])
        found[name] = measured.compare(shown, source)
        at = np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int)
        write_sheet(args.out / f"{clip.stem}_{name}.png", [source[at], shown[at]])
    return found


def main() -> None:
    """Run over all clips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="clips by name; default: all")
    parser.add_argument("--works", type=Path, required=True, help="OUT of `sglat_lab.bench.clips`")
    parser.add_argument("--identity-bytes", type=int, default=600_000)
    parser.add_argument("--frames", type=int, default=24, help="not tuned on, of each clip")
    parser.add_argument("--tune-frames", type=int, default=16, help="tuned on, of each clip")
    parser.add_argument("--steps", type=int, help="tuning steps; default: the encoder's")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--teachers", type=Path, help="folder of the measuring networks")
    parser.add_argument("--heads", type=Path, help="squeeze.pth of the lpips package")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    judges = load_judges(find_teachers(args.teachers), heads=args.heads)
    run, kept = provenance("python -m sglat_lab.bench.held_out"), Cache(args.out)
    clips = {}
    for clip in sorted(args.clips.glob("*.mp4")):
        if args.names and clip.stem not in args.names:
            continue
        clips[clip.stem] = kept.record(clip.stem, partial(measure, clip, args, judges))
        print(clip.stem, json.dumps(clips[clip.stem]), flush=True)
    record = {
        "clips": clips,
        "mean": {
            who: {key: average(clips.values(), f"{who}/{key}") for key in FIGURES}
            for who in ("others", "tuned")
        },
        "perceptual": judges.perceptual and judges.perceptual.name,
        "targets": targets("held_out"),
        "runs": [run],
    }
    write_atomically(args.out / "held_out.json", json.dumps(record, indent=1))
    print(part("held_out", **record))


if __name__ == "__main__":
    main()
