"""Encodings of a benchmark: resumable, each in a process of its own, within a plan of the time.

A sweep point costs only what must differ. Another identity size shares tracking, alignment and
inversion through the work file and is tuned and solved anew. Another motion quality shares the
solved motion too, which the encoder's own functions quantize with other steps.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.motion_coder import fit_model
from sglat.bundles.bundle import Bundle
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.losses import LossConfig
from sglat.encoder.quantize import PictureMetric, QuantizeConfig, motion_steps, quantize_motion
from sglat.encoder.tune import TuneConfig
from sglat.encoder.workfile import Store
from sglat.errors import SglatError, UsageError
from sglat.files import AtomicOutput, write_atomically
from sglat_lab.bench import file_variants
from sglat_lab.bench.harness import (
    BenchConfig,
    Budget,
    Clock,
    Plan,
    Speeds,
    apart,
    digest,
    make_plan,
    peak_memory_megabytes,
    speeds,
)

DEFAULT_STEPS: Final = TuneConfig().steps
SHARED_STAGES: Final = ("track", "register", "crops", "invert", "refine")
"""Stages that no setting of a sweep changes."""
QUALITIES: Final = (26, 38, 50, 74)
"""Beside the default of 62; octaves apart, so that the steps are exact halves and doubles."""
IDENTITY_BYTES: Final = (16_000, 32_000, 8_000)
"""Beside the default of 64,000, the most telling first."""


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """The files of one clip."""

    video: Path
    encoded: Path
    work: Path | None = None
    """The encoding's work file."""
    others: tuple[tuple[int, Path], ...] = ()
    """Encoded again at other identity sizes."""


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """One encoding."""

    video: Path
    target: Path
    """`.sglat`; beside it lie its record (`.json`) and, if kept, its work file (`.work`)."""
    bundle: str
    end_seconds: float | None = None
    """None: the whole video."""
    tune_steps: int | None = None
    """None: the encoder's default."""
    identity_bytes: int | None = None
    """None: the encoder's default."""
    shares: Path | None = None
    """Work file whose early stages are taken over."""
    threads: int = 1

    @property
    def record(self) -> Path:
        """Where the result is noted; it exists once the encoding is done."""
        return self.target.with_suffix(".json")

    @property
    def work(self) -> Path:
        """The work file."""
        return self.target.with_suffix(".work")


def run_job(job: EncodeJob) -> dict[str, Any]:
    """Encode, unless it is done already, and return the record with the peak memory.

    Raises:
        SglatError: of the encoder.
    """
    if job.record.exists():
        found: dict[str, Any] = json.loads(job.record.read_text(encoding="utf-8"))
        return found
    if job.shares is not None:
        share_stages(job.shares, job.work)
    config = EncodeConfig(
        bundle=job.bundle, force=True, tune_steps=job.tune_steps, threads=job.threads,
        device="cpu", workfile=job.work, keep_workfile=True, end_seconds=job.end_seconds,
    )  # fmt: skip
    if job.identity_bytes is not None:
        config = replace(config, identity_bytes=job.identity_bytes)
    began = time.perf_counter()
    told = ""

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal told
        if stage != told:
            told = stage
            print(f"  {job.target.stem}: {stage}", file=sys.stderr, flush=True)

    result = encode(job.video, job.target, config, progress=progress)
    record = result.to_json() | {
        "path": job.target.name,
        "peak_memory_megabytes": peak_memory_megabytes(),
        "wall_seconds": time.perf_counter() - began,
        "threads": job.threads,
    }
    write_atomically(job.record, json.dumps(record))
    return record


def run_jobs(jobs: Sequence[EncodeJob], workers: int) -> list[dict[str, Any] | Exception]:
    """Run encodings side by side, each in a fresh process, and return records or errors."""
    if all(job.record.exists() for job in jobs):
        return [run_job(job) for job in jobs]
    found: list[dict[str, Any] | Exception] = apart(workers, run_job, [(job,) for job in jobs])
    return found


def share_stages(source: Path, target: Path) -> None:
    """Begin a work file with the stages of another that no setting of a sweep changes."""
    if target.exists():
        return  # begun already: it goes on
    target.parent.mkdir(parents=True, exist_ok=True)
    with AtomicOutput(target, is_folder=True) as partial:
        partial.mkdir()
        for stage in SHARED_STAGES:
            shutil.copytree(source / stage, partial / stage)
        shutil.copy2(source / "source.json", partial / "source.json")


def solved_motion(work: Path, stage: str = "expression") -> NDArray[np.float32]:
    """Return the real-valued motion that a finished solver stage left, `[T, 34]`.

    Raises:
        UsageError: there is no finished work file.
    """
    values: NDArray[np.float32] = _finished(work, stage).read("motion")
    return values


def _finished(work: Path, stage: str) -> Store:
    key = work / stage / "key"
    if not key.exists():
        raise UsageError("no-work-file", f"expected a finished work file {work.name}, found none")
    return Store(work / stage, key=key.read_text())


def requantized(path: Path, work: Path, out: Path, *, quality: int) -> Path:
    """Write what the encoder writes at another motion quality; sound is left out.

    Args:
        path: the file made at any quality.
        work: its work file.
        out: the new file, replaced if it exists.
        quality: as the encoder's option `-q`.
    """
    parsed = file_variants.parse(path)
    made_at = int(parsed.header.settings["quality"])
    one = np.ones(1, np.float32)
    then, now = (motion_steps(one, QuantizeConfig(quality=q))[0] for q in (made_at, quality))
    steps = (parsed.motion.steps * (now / then)).astype(np.float32)
    arrays, _ = _finished(work, "smooth").result()
    metric = PictureMetric(normals=arrays["normals"], nearest=arrays["nearest"])
    values = quantize_motion(arrays["motion"], steps, QuantizeConfig(quality=quality), metric)
    header = replace(
        parsed.header,
        model=fit_model(values),
        settings={**parsed.header.settings, "quality": str(quality)},
    )
    return file_variants.with_motion(path, out, values, steps, header=header)


def tuning_networks() -> list[str]:
    """Return the networks of the bundle that the encoder's tuning minimises by default."""
    loss = LossConfig()
    weights = {"perceptual": loss.weight_perceptual, "identity": loss.weight_identity}
    return [name for name, weight in weights.items() if weight]


class Encodes:
    """Encodes within a budget of time; what is done stays done when the same call comes again.

    Args:
        options: folder, bundle and frames.
        bundle: loaded weights.
        clock: of the whole benchmark.
        budget: how the time is shared out.
        workers: processes side by side.
    """

    def __init__(
        self, options: BenchConfig, bundle: Bundle, clock: Clock, budget: Budget, workers: int
    ) -> None:
        self.options, self.bundle, self.clock = options, bundle, clock
        self.budget, self.workers = budget, workers
        self.folder = options.out / ("encoded-quick" if options.is_quick else "encoded")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.skipped: dict[str, str] = {}
        self.plan: Plan | None = None
        self._records: dict[Path, tuple[EncodeJob, dict[str, Any]]] = {}

    def run(self, videos: Sequence[Path]) -> list[ClipFiles]:
        """Plan, encode every clip once, and return the files."""
        plan = self.plan = self._plan(videos)
        steps = DEFAULT_STEPS if plan.tune_steps is None else plan.tune_steps
        self.clock.stage(
            "encode",
            f"{plan.clips} clips, {plan.frames} frames of each at most, {steps} steps of tuning, "
            f"about {plan.encode_seconds:.0f} s each, {self.workers} at a time",
        )
        for video in videos[plan.clips :]:
            self.skipped[video.name] = "left out: no time was left to encode it"
        jobs = [
            self._job(video, "whole", plan.frames, plan.tune_steps)
            for video in videos[: plan.clips]
        ]
        found = []
        for video, job in zip(videos, self._done(jobs), strict=False):
            if job is not None:
                found.append(ClipFiles(video=video, encoded=job.target, work=job.work))
        return found

    def sweep(self, files: list[ClipFiles], measure_seconds: float) -> list[ClipFiles]:
        """Encode clips again at other identity sizes while there is time, clip by clip.

        Args:
            files: of all clips.
            measure_seconds: what measuring all of them took.
        """
        plan = self.plan
        if plan is None:
            return files
        known = [self._with_sizes(one) for one in files]
        reserve = 60 * self.budget.minutes * self.budget.reserve
        each = plan.encode_seconds + 0.2 * measure_seconds / max(1, len(files))
        for at, one in enumerate(files):
            jobs = [self._sized(one, plan, size) for size in IDENTITY_BYTES]
            waiting = [job for job in jobs if not job.record.exists()]
            rounds = int(max(0.0, self.clock.left - reserve) / each)
            waiting = waiting[: rounds * self.workers]
            if waiting:
                sizes = ", ".join(str(job.identity_bytes) for job in waiting)
                self.clock.stage("sweep", f"{one.video.stem} at {sizes} identity bytes")
                self._done(waiting)
                known[at] = self._with_sizes(one)
        if not any(one.others for one in known):
            self.skipped["sweep of --identity-bytes"] = (
                "not measured: needs more time than was left; raise --minutes. Identity layers "
                "cut off and the sweep of -q are shown"
            )
        return known

    def memory(self) -> list[dict[str, Any]]:
        """Return peak memory against frames of all encodings so far, and of one of half length."""
        plan = self.plan
        is_affordable = plan is not None and self.clock.left > plan.encode_seconds / 2
        if plan is not None and is_affordable and not self.options.is_quick and self._records:
            job, record = max(self._records.values(), key=lambda pair: pair[1]["frames"])
            half = max(2, int(record["frames"]) // 2)
            self._done([self._job(job.video, "memory", half, self.budget.probe_steps)])
        points = {
            (job.video.stem, record["frames"], record["peak_memory_megabytes"])
            for job, record in self._records.values()
            if job.identity_bytes is None
        }
        return [
            {"clip": clip, "frames": frames, "peak_memory_megabytes": peak}
            for clip, frames, peak in sorted(points, key=lambda point: point[1:])
        ]

    def _plan(self, videos: Sequence[Path]) -> Plan:
        """Time short encodings of the first clips, all workers at work, and plan from them."""
        budget, options = self.budget, self.options
        probe = budget.probe_frames, budget.probe_steps
        path = self.folder / f"plan-{digest(*videos, self.bundle.decoder_id, options.frames)}.json"
        if path.exists():
            return Plan(**json.loads(path.read_text(encoding="utf-8")))
        self.clock.stage("plan", f"timing encodings of {probe[0]} frames")
        jobs = [self._job(video, "probe", *probe) for video in videos[: self.workers]]
        done = [job for job in self._done(jobs) if job is not None]
        times = [speeds(self._records[job.target][1], probe[1]) for job in done]
        cost = _mean(times) if times else Speeds(once=0.0, step=0.0, frame=0.0)
        seconds = 60 * budget.minutes * budget.encoding
        plan = make_plan(
            cost, clips=len(videos), workers=self.workers, default_steps=DEFAULT_STEPS,
            seconds=max(seconds - self.clock.elapsed, seconds / 4), frames=options.frames,
            least_frames=budget.least_frames,
        )  # fmt: skip
        write_atomically(path, json.dumps(asdict(plan)))
        return plan

    def _sized(self, files: ClipFiles, plan: Plan, size: int) -> EncodeJob:
        job = self._job(files.video, f"sized {size}", plan.frames, plan.tune_steps)
        return replace(job, identity_bytes=size, shares=files.work)

    def _job(self, video: Path, what: str, frames: int, tune_steps: int | None) -> EncodeJob:
        """Return the encoding of a video's first frames."""
        name = f"{video.stem}-{digest(video, self.bundle.decoder_id, what, frames, tune_steps)}"
        return EncodeJob(
            video=video, target=self.folder / f"{name}.sglat", bundle=self.options.bundle,
            end_seconds=file_variants.end_of(video, frames), tune_steps=tune_steps,
        )  # fmt: skip

    def _with_sizes(self, files: ClipFiles) -> ClipFiles:
        plan = self.plan
        if plan is None:
            return files
        jobs = [self._sized(files, plan, size) for size in IDENTITY_BYTES]
        made = [(job.identity_bytes or 0, job.target) for job in jobs if job.record.exists()]
        return replace(files, others=tuple(made))

    def _done(self, jobs: Sequence[EncodeJob]) -> list[EncodeJob | None]:
        """Run encodings; what failed is noted and None."""
        found: list[EncodeJob | None] = []
        for job, result in zip(jobs, run_jobs(jobs, self.workers), strict=True):
            if isinstance(result, Exception):
                reason = str(result) if isinstance(result, SglatError) else repr(result)
                self.skipped[job.video.name] = reason
                self.clock.tell(f"{job.video.name} left out: {reason}")
                found.append(None)
            else:
                self._records[job.target] = (job, result)
                found.append(job)
        return found


def _mean(times: Sequence[Speeds]) -> Speeds:
    return Speeds(
        **{name: fmean(getattr(t, name) for t in times) for name in ("once", "step", "frame")}
    )
