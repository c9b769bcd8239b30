"""The paper's mode against the default on the first frames of clips, and known motion recovered.

    python -m sglat_lab.bench.paper_mode CLIPS OUT [--frames 6] [--epochs 40] [CLIP ...]

Finished parts are kept in OUT, so an interrupted run continues. Writes OUT/paper_mode.json and
OUT/paper_mode.md. Pictures are rendered at the solved motion before it is quantized, at the
bundle's lowest resolution, and compared with the aligned crops.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from sglat.encoder.analysis import Analysis, analyse, begin, clip_of
from sglat.encoder.config import EncodeConfig
from sglat.encoder.paper_pose import PaperPoseConfig
from sglat.encoder.paper_solver import PaperClip, PaperConfig, PaperSolver, clip_in
from sglat.encoder.person import TunedPerson
from sglat.encoder.solve_motion import FastConfig, solve_motion
from sglat.encoder.stages import Runner
from sglat.media.reader import VideoReader
from sglat.networks.pixels import from_pixels, to_pixels
from sglat_lab.bench.harness import Cache
from sglat_lab.bench.run import clip_paths
from sglat_lab.measure.judges import Judges, distances_to, features_of, find_teachers, load_judges
from sglat_lab.measure.picture_metrics import psnr_db
from sglat_lab.report.pages import Record, provenance, targets, write_page

ARMS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "paper, our tuning": {"solver": "paper"},
    "paper, PTI": {"solver": "paper", "tuning": "pti"},
}
REACH: Final = 1.5
"""Amplitude of known motion in sigmas: what the controls reach on natural clips."""
REACH_DEGREES: Final = 4.0


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is computed: all constants of the solver's schedule shrink with its epochs."""

    frames: int
    tune_steps: int
    pti_steps: int
    epochs: int

    @property
    def pose(self) -> PaperPoseConfig:
        """The search of yaw and pitch."""
        return PaperPoseConfig(steps=self.epochs, decay_every=max(1, self.epochs // 10))

    @property
    def expression(self) -> PaperConfig:
        """The search of the controls."""
        return PaperConfig(epochs=self.epochs, decay_every=max(1, self.epochs // 10))


def arm_record(video: Path, out: Path, arm: str, effort: Effort, judges: Judges) -> Record:
    """Return the figures of one clip by one mode."""
    config = _config(video, effort, **ARMS[arm])
    began = time.perf_counter()

    def progress(stage: str, done: int, total: int) -> None:
        if done == total:
            print(f"  {video.stem}, {arm}: {stage}", file=sys.stderr, flush=True)

    work = out / f"{video.stem}.{list(ARMS).index(arm)}.work"
    run = begin(video, work, config, progress)
    found = analyse(run, clip_of(video, config), config)
    if config.solver == "paper":
        motion, losses = _by_paper(run, found, effort)
    else:
        solved = solve_motion(run, found.person, found.problem, FastConfig())
        motion, losses = torch.from_numpy(solved.value.motion), {}
    return {
        "seconds": time.perf_counter() - began,
        "identity_bytes": sum(map(len, _payloads(found))),
        **losses,
        **_figures(found, motion, judges),
    }


def _config(video: Path, effort: Effort, **choices: Any) -> EncodeConfig:
    with VideoReader(video) as reader:
        end = effort.frames / float(reader.info.frame_rate)
    is_pti = choices.get("tuning") == "pti"
    return EncodeConfig(
        end_seconds=round(end - 1e-3, 3), resolution=128, threads=1,
        tune_steps=effort.pti_steps if is_pti else effort.tune_steps, **choices,
    )  # fmt: skip


def _payloads(found: Analysis) -> list[bytes]:
    from sglat.bitstream.identity import pack_identity

    return [payload for _, payload in pack_identity(found.identity)]


def _by_paper(run: Runner, found: Analysis, effort: Effort) -> tuple[Tensor, Record]:
    """Return the solved motion, `[T, 34]`, and the total loss before and after, a frame."""
    pose = run(effort.pose, found.person, found.problem)
    motion = run(effort.expression, found.person, found.problem, pose).value
    problem, person = found.problem.value, found.person.value
    solver = PaperSolver(person, run.bundle, clip_in(problem), effort.expression)
    rows = torch.from_numpy(problem.solved)
    totals = [total_loss(solver, values[rows]) for values in (pose.value, motion)]
    return motion, {"loss_start": totals[0], "loss_end": totals[1]}


@torch.no_grad()
def total_loss(solver: PaperSolver, motion: Tensor) -> float:
    """Return the sum of the three groups' losses of motion `[T, 34]`, mean over the frames."""
    total, window = 0.0, solver.config.window
    for at in range(0, len(motion), window):
        part = motion[at : at + window]
        loss = solver.loss_at(at, len(part), list(motion[:at]))
        total += len(part) * float(loss(solver.person.render(part)).sum())
    return total / len(motion)


@torch.no_grad()
def _figures(found: Analysis, motion: Tensor, judges: Judges) -> Record:
    rows = found.problem.value.solved
    parts = [found.person.value.render(part) for part in motion[torch.from_numpy(rows)].split(8)]
    shown = to_pixels(torch.cat(parts).clamp(-1, 1))
    crops = np.asarray(found.aligned.value.crops.pictures(rows))
    pairs = zip(shown, crops, strict=True)
    record: Record = {"frames": len(rows), "psnr": float(np.mean([psnr_db(*p) for p in pairs]))}
    if judges.perceptual is not None:
        wanted = features_of(judges.perceptual, crops)
        record["perceptual"] = float(distances_to(judges.perceptual, shown, wanted)[0].mean())
    if judges.identity is not None:
        vectors = [judges.identity(from_pixels(pictures)) for pictures in (shown, crops)]
        record["identity_loss"] = float((1 - (vectors[0] * vectors[1]).sum(1)).mean())
    return record


def recovery_record(video: Path, out: Path, effort: Effort, *, frames: int = 4) -> Record:
    """Return how well known motion is found again from its own renderings.

    Yaw and pitch are given: the error is that of the controls, relative to the range of the known
    values of each.
    """
    config = _config(video, effort)
    run = begin(video, out / f"{video.stem}.0.work", config)
    found = analyse(run, clip_of(video, config), config)
    person, problem = found.person.value, found.problem.value
    rows = problem.solved[:frames]
    known = known_motion(person, frames)
    with torch.no_grad():
        targets_of = person.render(known)
    clip = PaperClip(
        targets=lambda first, last: targets_of[first:last],
        points=problem.points[rows].numpy(),
        begins=np.zeros(frames, bool),
        shut=np.zeros(frames, bool),
    )
    start = person.person.neutral.expand(frames, -1).clone()
    start[:, :2] = known[:, :2]
    solver = PaperSolver(person, run.bundle, clip, replace(effort.expression, window=frames))
    solved = torch.cat(list(solver.solve(start, start[:0])))
    span = 2 * REACH * torch.tensor(run.bundle.controls.sigma)
    error = (solved - known)[:, 2:].abs() / span
    return {
        "frames": frames,
        "epochs": effort.epochs,
        "median_error": float(error.median()),
        "start_error": float(((start - known)[:, 2:].abs() / span).median()),
        "error_of_control": error.median(0).values.tolist(),
        "names": list(run.bundle.controls.names),
        "loss_start": solver.history[0][0],
        "loss_end": solver.history[0][-1],
    }


def known_motion(person: TunedPerson, frames: int) -> Tensor:
    """Return smooth motion about the ID frame's, `[frames, 34]`, of every value at its own phase
    and over its whole reach."""
    random = torch.Generator().manual_seed(0)
    phase = 2 * torch.pi * torch.rand(34, generator=random)
    turn = torch.linspace(0, 2 * torch.pi, frames + 1)[:-1]
    wave = torch.sin(turn[:, None] + phase)
    wave[:, :2] *= REACH_DEGREES
    wave[:, 2:] *= REACH
    return person.person.neutral + wave


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="clips by name; default: all")
    parser.add_argument("--frames", type=int, default=6, help="of each clip")
    parser.add_argument("--tune-steps", type=int, default=100)
    parser.add_argument("--pti-steps", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--recovery-epochs", type=int, default=100)
    parser.add_argument("--teachers", type=Path, help="folder of the measuring networks")
    return parser.parse_args()


def main() -> None:
    """Run over all clips."""
    args = parse_arguments()
    torch.set_num_threads(1)
    kept, judges = Cache(args.out), load_judges(find_teachers(args.teachers))
    run_facts = provenance("python -m sglat_lab.bench.paper_mode")
    effort = Effort(
        frames=args.frames, tune_steps=args.tune_steps, pti_steps=args.pti_steps,
        epochs=args.epochs,
    )  # fmt: skip
    videos = [v for v in clip_paths(args.clips) if not args.names or v.stem in args.names]
    clips: dict[str, Record] = {}
    for video in videos:
        clips[video.stem] = {
            arm: kept.record(
                f"{video.stem}.{index}", partial(arm_record, video, args.out, arm, effort, judges)
            )
            for index, arm in enumerate(ARMS)
        }
        write(args.out, clips, {}, vars(effort), judges, run_facts)
    thorough = replace(effort, epochs=args.recovery_epochs)
    recovery = kept.record("recovery", partial(recovery_record, videos[0], args.out, thorough))
    write(args.out, clips, recovery, vars(effort), judges, run_facts)


def write(
    out: Path, clips: dict[str, Record], recovery: Record, effort: Record, judges: Judges,
    run_facts: Record,
) -> None:  # fmt: skip
    """Write the record and its page."""
    falls = [
        record["loss_end"] < record["loss_start"]
        for arms in clips.values()
        for record in arms.values()
        if "loss_end" in record
    ]
    record = {
        "clips": clips,
        "arms": list(ARMS),
        "effort": effort,
        "recovery": recovery,
        "share_falling": sum(falls) / max(1, len(falls)),
        "perceptual": judges.perceptual and judges.perceptual.name,
        "targets": targets("paper_mode"),
        "runs": [run_facts],
    }
    write_page(out / "paper_mode.md", record)


if __name__ == "__main__":
    main()
