"""Encoding for the benchmark: in processes of their own, resumable, and again for sweep points.

A sweep point costs only what must differ. Another identity size shares tracking, alignment and
inversion through the work file and is tuned and solved anew. Another motion quality shares the
solved numbers too: they are rounded to other steps, by the encoder's own functions.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.fit import fit_model
from sglat.errors import UsageError
from sglat.files import AtomicOutput, write_atomically
from sglat_lab.bench import file_variants
from sglat_lab.bench.cache import digest
from sglat_lab.bench.processes import Failure, apart
from sglat_lab.bench.speed import peak_memory_megabytes

if TYPE_CHECKING:
    from sglat.encoder.quantize import PictureMetric

SHARED_STAGES: Final = ("track", "register", "crops", "invert", "refine")
"""Stages that no setting of a sweep changes."""
QUALITIES: Final = (26, 38, 50, 74)
"""Beside the default of 62; octaves apart, so that the steps are exact halves and doubles."""
IDENTITY_BYTES: Final = (16_000, 32_000, 8_000)
"""Beside the default of 64,000, the most telling first."""


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """One encoding."""

    video: Path
    target: Path
    """`.sglat`; beside it lie its record (`.json`) and, if kept, its work file (`.work`)."""
    bundle: str
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


def job_name(video: Path, decoder_id: bytes, *settings: object) -> str:
    """Return a name for an encoding of a video that changes with what it depends on."""
    return f"{video.stem}-{digest(video, decoder_id, settings)}"


def run_job(job: EncodeJob, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Encode, unless it is done already, and return the record with the peak memory.

    Raises:
        SglatError: what the encoder says.
    """
    if job.record.exists():
        found: dict[str, Any] = json.loads(job.record.read_text(encoding="utf-8"))
        return found
    from sglat.encoder.encode import EncodeConfig, encode

    if job.shares is not None:
        share_stages(job.shares, job.work)
    config = EncodeConfig(
        bundle=job.bundle, force=True, tune_steps=job.tune_steps, threads=job.threads,
        device="cpu", workfile=job.work, keep_workfile=True,
    )  # fmt: skip
    if job.identity_bytes is not None:
        config = replace(config, identity_bytes=job.identity_bytes)
    began = time.perf_counter()
    progress = None if tell is None else _said(tell, job.target.stem)
    result = encode(job.video, job.target, config, progress=progress)
    record = result.to_json() | {
        "path": job.target.name,
        "peak_memory_megabytes": peak_memory_megabytes(),
        "wall_seconds": time.perf_counter() - began,
        "threads": job.threads,
    }
    write_atomically(job.record, json.dumps(record))
    return record


def _said(tell: Callable[[str], None], name: str) -> Callable[[str, int, int], None]:
    last = [""]

    def progress(stage: str, done: int, total: int) -> None:
        if stage != last[0]:
            last[0] = stage
            tell(f"  {name}: {stage}")

    return progress


def run_jobs(jobs: Sequence[EncodeJob], workers: int) -> list[dict[str, Any] | Failure]:
    """Run encodings side by side, each in a fresh process; what failed is returned as that."""
    if all(job.record.exists() for job in jobs):
        return [run_job(job) for job in jobs]
    found: list[dict[str, Any] | Failure] = apart(workers, _run_told, [(job,) for job in jobs])
    return found


def _run_told(job: EncodeJob) -> dict[str, Any]:
    return run_job(job, lambda line: print(line, file=sys.stderr, flush=True))


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
    """Return the real-valued numbers that a finished solver stage left, `[T, 34]`.

    Raises:
        UsageError: there is no finished work file.
    """
    from sglat.encoder.workfile import Stage

    key = work / stage / "key"
    if not key.exists():
        raise UsageError("no-work-file", f"expected a finished work file {work.name}, found none")
    values: NDArray[np.float32] = Stage(work / stage, key=key.read_text()).read("motion")
    return values


def fitted_motion(work: Path) -> tuple[NDArray[np.float32], PictureMetric]:
    """Return the real-valued numbers `[T, 34]` that a finished encoding rounded, and how visible
    errors of them are.

    Raises:
        UsageError: there is no finished work file.
    """
    from sglat.encoder.quantize import PictureMetric
    from sglat.encoder.workfile import Stage

    key = work / "fitted" / "key"
    if not key.exists():
        raise UsageError("no-work-file", f"expected a finished work file {work.name}, found none")
    arrays, _ = Stage(work / "fitted", key=key.read_text()).result()
    metric = PictureMetric(normals=arrays["normals"], nearest=arrays["nearest"])
    return arrays["motion"], metric


def requantized(path: Path, work: Path, out: Path, *, quality: int) -> Path:
    """Write what the encoder writes at another motion quality; sound is left out.

    Args:
        path: the file made at any quality.
        work: its work file.
        out: the new file, replaced if it exists.
        quality: as the encoder's option `-q`.
    """
    from sglat.encoder.quantize import PackConfig, motion_steps, quantize_motion

    parsed = file_variants.parse(path)
    made_at = int(parsed.header.settings["quality"])
    one = np.ones(1, np.float32)
    then, now = (motion_steps(one, PackConfig(quality=q))[0] for q in (made_at, quality))
    steps = (parsed.motion.steps * (now / then)).astype(np.float32)
    motion, metric = fitted_motion(work)
    values = quantize_motion(motion, steps, PackConfig(quality=quality), metric)
    header = replace(
        parsed.header,
        model=fit_model(values),
        settings={**parsed.header.settings, "quality": str(quality)},
    )
    return file_variants.with_motion(path, out, values, steps, header=header)
