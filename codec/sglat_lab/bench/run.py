"""The whole benchmark: plans its time, encodes, measures in workers, sweeps, sums up over clips."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import torch

from sglat.errors import SglatError, UsageError
from sglat.version import __version__
from sglat_lab.bench.clip_bench import ClipBench
from sglat_lab.bench.encodes import ClipFiles, Encodes, tuning_networks
from sglat_lab.bench.harness import (
    FULL_BUDGET,
    QUICK_BUDGET,
    BenchConfig,
    Clock,
    Plan,
    processes,
    side_by_side,
)
from sglat_lab.bench.long_decode import decode_apart, decode_memory
from sglat_lab.bench.probes import (
    Tools,
    chosen_probes,
    clip_record,
    frechet_probe,
    is_recorded,
    solver_probe,
    swap_record,
)
from sglat_lab.bench.published import Figures, networks_at_hand, published_probe
from sglat_lab.measure.picture_metrics import METRICS
from sglat_lab.measure.rates import summarize
from sglat_lab.report.html import ClipPictures
from sglat_lab.report.pages import provenance

NOT_CHOSEN: Final = "not measured: the probe was not chosen"
VIDEO_SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
SOLVER_FRAMES: Final = 4
SOLVER_EPOCHS: Final = {True: 5, False: 100}  # quick and full; the method's own are 100
SOLVER_ITERATIONS: Final = 4
MEMORY_LENGTHS: Final = {True: (50, 250), False: (50, 250, 1000)}


def clip_paths(folder: Path) -> list[Path]:
    """Return the videos of a folder.

    Raises:
        UsageError: none there.
    """
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise UsageError("no-clips", f"expected videos in {folder}, found none")
    return found


@cache
def _tools(config: BenchConfig, threads: int) -> Tools:
    """Return the tools of a process."""
    torch.set_num_threads(threads)
    return Tools(config)


def _in_process(
    task: Callable[..., Any], config: BenchConfig, threads: int, *arguments: Any
) -> Any:
    return task(_tools(config, threads), *arguments)


def _measure_clip(tools: Tools, files: ClipFiles, names: Sequence[str]) -> None:
    clip_record(tools.clip(files), tools, names)
    print(f"  {files.video.stem}: measured", file=sys.stderr, flush=True)


def _swap(tools: Tools, driver: ClipFiles, puppet: ClipFiles) -> None:
    swap_record(tools, tools.clip(driver), tools.clip(puppet))


class Benchmark:
    """Runs everything; interrupted, the same call goes on.

    Args:
        config: what.
        tell: told of each step in a line.
    """

    def __init__(self, config: BenchConfig, tell: Callable[[str], None]) -> None:
        self.config = config
        self.tell = tell
        self.probes = chosen_probes(config.probes)
        if not config.with_speed:
            self.probes = [name for name in self.probes if name != "speed"]
        self.provenance = provenance("sgl-bench")  # of the code that is loaded now
        budget = QUICK_BUDGET if config.is_quick else FULL_BUDGET
        if config.minutes is not None:
            budget = replace(budget, minutes=config.minutes)
        self.budget = budget
        self.clock = Clock(tell, budget.minutes)
        self.cores = self.threads = os.cpu_count() or 1
        self.tools = Tools(config)
        self.clips: list[ClipBench] = []
        self.skipped: dict[str, str] = dict(self.tools.refused)
        self.plan: Plan | None = None

    def run(self) -> dict[str, Any]:
        """Return the whole record as plain values; pictures stay in the clips' caches."""
        videos = clip_paths(self.config.clips)
        count = min(self.config.workers or self.cores, len(videos))
        encodes = None
        if self.config.encoded is None:
            encodes = Encodes(self.config, self.tools.bundle, self.clock, self.budget, count)
            files = encodes.run(videos)
            self.plan, self.skipped = encodes.plan, self.skipped | encodes.skipped
        else:
            files = self._made_earlier(videos)
        files = self._usable(files)
        self.threads = max(1, self.cores // count)
        with processes(count) as pool:
            files = self._measure(pool, files, encodes)
            swaps = self._swaps(pool, files) if "swap" in self.probes else []
            solvers = self._solvers(pool, files) if "solvers" in self.probes else NOT_CHOSEN
        records = [clip_record(clip, self.tools, self.probes) for clip in self.clips]
        speed = self._speed(encodes) if "speed" in self.probes else {}
        self.clock.stage("sums")
        record = {
            "about": self._about(count),
            "clips": records,
            "summary": summarize(records),
            "swap": swaps,
            "frechet": self._frechet(records) if "frechet" in self.probes else {},
            "published": (published := self._published(records)),
            "solvers": solvers,
            "speed": speed,
            "not_measured": {
                what: needs
                for what, needs in self.tools.judges.missing.items()
                if what not in published
            },
            "skipped": self.skipped,
        }
        return record | {"stage_seconds": self.clock.finish()}

    def pictures(self, record: dict[str, Any]) -> list[ClipPictures]:
        """Return the pictures of all clips, for the report."""
        return [
            clip.pictures(found, self.tools.anchors)
            for clip, found in zip(self.clips, record["clips"], strict=True)
        ]

    def close(self) -> None:
        """Release what the measurements used."""
        self.tools.close()

    def _each(
        self,
        pool: ProcessPoolExecutor,
        task: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
    ) -> list[Any]:
        """Do a task with the tools of a process of the pool for each set of arguments.

        Raises:
            Exception: the first of the tasks.
        """
        known = (task, self.config, self.threads)
        found = side_by_side(pool, _in_process, [(*known, *one) for one in arguments])
        for error in found:
            if isinstance(error, BaseException):
                raise error
        return found

    def _made_earlier(self, videos: Sequence[Path]) -> list[ClipFiles]:
        folder = self.config.encoded
        found = []
        for video in videos:
            path = Path() if folder is None else folder / f"{video.stem}.sglat"
            if path.is_file():
                found.append(ClipFiles(video=video, encoded=path))
            else:
                self._leave_out(video, f"not-encoded: expected {path.name}, found none")
        return found

    def _usable(self, files: Sequence[ClipFiles]) -> list[ClipFiles]:
        """Return the clips whose file this bundle plays and whose source crops can be cut."""
        found = []
        for one in files:
            try:
                clip = self.tools.clip(one)
                header = clip.parsed.header
                self.tools.bundle.of_file(header)
                _ = clip.source
                found.append(one)
            except SglatError as error:
                self._leave_out(one.video, str(error))
        if not found:
            raise UsageError("no-clips", f"none of the clips could be used: {self.skipped}")
        return found

    def _leave_out(self, video: Path, reason: str) -> None:
        self.skipped[video.name] = reason
        self.tell(f"{video.name} left out: {reason}")

    def _measure(
        self, pool: ProcessPoolExecutor, files: list[ClipFiles], encodes: Encodes | None
    ) -> list[ClipFiles]:
        """Measure all clips; then encode some again at other identity sizes while there is time."""
        self.clock.stage("measure", f"{len(files)} clips")
        began = self.clock.elapsed
        self._measured(pool, files)
        if encodes is None:
            return files
        files = encodes.sweep(files, self.clock.elapsed - began)
        self.clock.stage("measure", "identity sizes")
        self._measured(pool, files)
        return files

    def _measured(self, pool: ProcessPoolExecutor, files: Sequence[ClipFiles]) -> None:
        self.clips = [self.tools.clip(one) for one in files]
        waiting = [
            one
            for one, clip in zip(files, self.clips, strict=True)
            if not is_recorded(clip, self.probes)
        ]
        if waiting:
            self._each(pool, _measure_clip, [(files, self.probes) for files in waiting])

    def _swaps(self, pool: ProcessPoolExecutor, files: Sequence[ClipFiles]) -> list[dict[str, Any]]:
        """Put each clip's motion onto the next clip's person."""
        if len(files) < 2:
            return []
        self.clock.stage("swap")
        pairs = [*pairwise(files), (files[-1], files[0])]
        self._each(pool, _swap, pairs)
        clips = [*pairwise(self.clips), (self.clips[-1], self.clips[0])]
        return [swap_record(self.tools, driver, puppet) for driver, puppet in clips]

    def _solvers(
        self, pool: ProcessPoolExecutor, files: Sequence[ClipFiles]
    ) -> dict[str, Any] | str:
        """Return the two solvers' losses on a piece of one clip, or why they are not known."""
        self.clock.stage("solvers")
        epochs = SOLVER_EPOCHS[self.config.is_quick]
        one, clip = next(
            ((f, c) for f, c in zip(files, self.clips, strict=True) if f.work is not None),
            (files[0], self.clips[0]),
        )

        def make() -> dict[str, Any]:
            count = min(SOLVER_FRAMES, clip.window)
            tasks = [(one, count, epochs, SOLVER_ITERATIONS)]
            (record,) = self._each(pool, solver_probe, tasks)
            return record  # type: ignore[no-any-return]

        try:
            found: dict[str, Any] = clip.cache.record(f"solvers-{epochs}", make)
            return found
        except SglatError as error:
            return f"not measured: {error.message}"

    def _speed(self, encodes: Encodes | None) -> dict[str, Any]:
        """Return decoding speed in fresh processes, and peak memory against the length."""
        self.clock.stage("speed and memory")
        ordered = sorted(self.clips, key=lambda clip: len(clip.parsed.motion.values))
        longest = ordered[-1]
        devices = list(dict.fromkeys(["cpu", *(["cuda"] if torch.cuda.is_available() else [])]))
        decoding = [
            {"clip": longest.name}
            | decode_apart(longest.encoded, bundle=self.config.bundle, device=name, with_ratio=True)
            for name in devices
        ]
        lengths = MEMORY_LENGTHS[self.config.is_quick]
        memory = decode_memory(longest.encoded, self.config.bundle, lengths, longest.cache.folder)
        return {
            "decoding": decoding,
            "decode_memory": memory,
            "encode_memory": [] if encodes is None else encodes.memory(),
        }

    def _frechet(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return frechet_probe(self.tools.judges, self.clips, self.tools.anchors, records)

    def _published(self, records: Sequence[dict[str, Any]]) -> Figures:
        if "published" not in self.probes:
            return {}
        tools = self.tools
        networks = networks_at_hand(tools.bundle)
        return published_probe(networks, self.clips, tools.anchors, records, self.config.openface)

    def _about(self, workers: int) -> dict[str, Any]:
        judges = self.tools.judges
        return {
            "sglat": __version__,
            **self.provenance,
            "bundle": self.tools.bundle.name,
            "decoder_id": self.tools.bundle.decoder_id.hex(),
            "is_quick": self.config.is_quick,
            "probes": self.probes,
            "effort": asdict(self.tools.effort),
            "plan": None if self.plan is None else asdict(self.plan),
            "minutes": self.budget.minutes,
            "tuning_networks": None if self.plan is None else tuning_networks(),
            "workers": workers,
            "metrics": [asdict(metric) for metric in METRICS],
            "perceptual": judges.perceptual.name if judges.perceptual else None,
            "identity": "MobileFaceNet, 128 numbers" if judges.identity else None,
            "signals": "MediaPipe face landmarker, each frame by itself"
            if self.tools.landmarker
            else None,
            "anchors": [
                {"name": c.name, "encoder": c.encoder, "options": c.options}
                for c in self.tools.anchors
            ],
        }
