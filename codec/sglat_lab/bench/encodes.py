"""All encodings of one benchmark: the timed beginning, every clip once, identity sizes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from sglat.bundles.bundle import Bundle
from sglat.encoder.losses import LossConfig
from sglat.encoder.tune import TuneConfig
from sglat_lab.bench import file_variants
from sglat_lab.bench.cache import digest
from sglat_lab.bench.encode_options import IDENTITY_BYTES, EncodeJob, job_name, run_jobs
from sglat_lab.bench.processes import Failure
from sglat_lab.bench.time_plan import Budget, Clock, Plan, Speeds, make_plan, speeds
from sglat_lab.bench.workers import ClipFiles

DEFAULT_STEPS: Final = TuneConfig().steps


def tuning_networks() -> list[str]:
    """Return the networks of the bundle that the encoder's tuning minimises by default."""
    loss = LossConfig()
    weights = {"perceptual": loss.weight_perceptual, "identity": loss.weight_identity}
    return [name for name, weight in weights.items() if weight]


class Wishes(Protocol):
    """What of `BenchConfig` encodings depend on."""

    @property
    def out(self) -> Path:
        """Folder of results."""

    @property
    def bundle(self) -> str:
        """Weights."""

    @property
    def frames(self) -> int | None:
        """Most frames of each clip."""

    @property
    def is_quick(self) -> bool:
        """Whether there is little time."""


class Encodes:
    """Encodes within a budget of time; what is done stays done when the same call comes again.

    Args:
        wishes: folder, bundle and frames.
        bundle: loaded weights.
        clock: says what time is left.
        budget: how the time is shared out.
        workers: processes side by side.
    """

    def __init__(
        self, wishes: Wishes, bundle: Bundle, clock: Clock, budget: Budget, workers: int
    ) -> None:
        self.wishes, self.bundle, self.clock = wishes, bundle, clock
        self.budget, self.workers = budget, workers
        self.folder = wishes.out / ("encoded-quick" if wishes.is_quick else "encoded")
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
        jobs = [self._job(video, plan) for video in videos[: plan.clips]]
        found = []
        for video, job in zip(videos, self._done(jobs), strict=False):
            if job is not None:
                short = self._short(video, plan.frames)
                found.append(ClipFiles(video=short, encoded=job.target, work=job.work))
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
        if plan is not None and is_affordable and not self.wishes.is_quick and self._records:
            job, record = max(self._records.values(), key=lambda pair: pair[1]["frames"])
            half = max(2, int(record["frames"]) // 2)
            short = self._short(job.video, half)
            steps = self.budget.probe_steps
            name = job_name(short, self.bundle.decoder_id, "memory", half, steps)
            self._done([replace(
                job, video=short, target=self.folder / f"{name}.sglat", tune_steps=steps
            )])  # fmt: skip
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
        budget, wishes = self.budget, self.wishes
        probe = budget.probe_frames, budget.probe_steps
        path = self.folder / f"plan-{digest(*videos, self.bundle.decoder_id, wishes.frames)}.json"
        if path.exists():
            return Plan(**json.loads(path.read_text(encoding="utf-8")))
        self.clock.stage("plan", f"timing encodings of {probe[0]} frames")
        jobs = []
        for video in videos[: self.workers]:
            short = self._short(video, probe[0])
            name = job_name(short, self.bundle.decoder_id, "probe", probe)
            jobs.append(self._new(short, name, tune_steps=probe[1]))
        done = [job for job in self._done(jobs) if job is not None]
        times = [speeds(self._records[job.target][1], probe[1]) for job in done]
        cost = _mean(times) if times else Speeds(once=0.0, step=0.0, frame=0.0)
        seconds = 60 * budget.minutes * budget.encoding
        plan = make_plan(
            cost, clips=len(videos), workers=self.workers, default_steps=DEFAULT_STEPS,
            seconds=max(seconds - self.clock.elapsed, seconds / 4), frames=wishes.frames,
            least_frames=budget.least_frames,
        )  # fmt: skip
        path.write_text(json.dumps(plan.to_json()), encoding="utf-8")
        return plan

    def _short(self, video: Path, frames: int) -> Path:
        """Return the beginning of a video, or the video itself where it is no longer."""
        return file_variants.first_frames(
            video, self.wishes.out / "shortened" / str(frames), frames
        )

    def _job(self, video: Path, plan: Plan) -> EncodeJob:
        short = self._short(video, plan.frames)
        name = job_name(short, self.bundle.decoder_id, "whole", plan.tune_steps)
        return self._new(short, name, tune_steps=plan.tune_steps)

    def _sized(self, files: ClipFiles, plan: Plan, size: int) -> EncodeJob:
        name = job_name(files.video, self.bundle.decoder_id, "sized", plan.tune_steps, size)
        job = self._new(files.video, name, tune_steps=plan.tune_steps)
        return replace(job, identity_bytes=size, shares=files.work)

    def _new(self, video: Path, name: str, *, tune_steps: int | None) -> EncodeJob:
        return EncodeJob(
            video=video, target=self.folder / f"{name}.sglat", bundle=self.wishes.bundle,
            tune_steps=tune_steps,
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
            if isinstance(result, Failure):
                self.skipped[job.video.name] = str(result)
                self.clock.tell(f"{job.video.name} left out: {result}")
                found.append(None)
            else:
                self._records[job.target] = (job, result)
                found.append(job)
        return found


def _mean(times: Sequence[Speeds]) -> Speeds:
    count = len(times)
    return Speeds(
        once=sum(t.once for t in times) / count,
        step=sum(t.step for t in times) / count,
        frame=sum(t.frame for t in times) / count,
    )
