"""Measuring in several processes: what each loads once, and the two things it is asked to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.errors import UsageError
from sglat_lab.bench import file_variants
from sglat_lab.bench.anchors import ANCHORS, AnchorCodec, refusal
from sglat_lab.bench.clip_bench import FULL, QUICK, ClipBench, Effort
from sglat_lab.bench.clip_record import clip_record
from sglat_lab.bench.processes import Failure, guarded, processes, side_by_side, unwrapped
from sglat_lab.measure.face_signals import Landmarker, compare
from sglat_lab.measure.judges import (
    Judges,
    embeddings,
    find_teachers,
    identity_losses,
    load_judges,
)


@dataclass(frozen=True, kw_only=True)
class ToolConfig:
    """What is measured with."""

    out: Path
    """Folder of results."""
    bundle: str = "mini"
    teachers: Path | None = None
    heads: Path | None = None
    """LPIPS v0.1 heads for SqueezeNet."""
    is_quick: bool = False
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """The files of one clip."""

    video: Path
    encoded: Path
    work: Path | None = None
    """The encoding's work file."""
    others: tuple[tuple[int, Path], ...] = ()
    """Encoded again at other identity sizes."""


class Tools:
    """The measuring networks, the bundle and the anchors that are at hand.

    Args:
        config: which.
    """

    def __init__(self, config: ToolConfig) -> None:
        self.config = config
        self.effort: Effort = QUICK if config.is_quick else FULL
        self.judges: Judges = load_judges(find_teachers(config.teachers), heads=config.heads)
        file = self.judges.landmarker
        self.landmarker = None if file is None else Landmarker(file)
        self.bundle: Bundle = load_bundle(config.bundle, config.device)
        self.anchors: list[AnchorCodec] = []
        self.refused: dict[str, str] = {}
        for codec in ANCHORS:
            reason = refusal(codec, self.bundle.resolution)
            if reason is None:
                self.anchors.append(codec)
            else:
                self.refused[codec.name] = reason

    def clip(self, files: ClipFiles) -> ClipBench:
        """Return the bench of a clip."""
        return ClipBench(
            video=files.video, encoded=files.encoded, bundle=self.bundle, judges=self.judges,
            landmarker=self.landmarker, effort=self.effort, folder=self.config.out / "cache",
            work=files.work, others=dict(files.others),
        )  # fmt: skip

    def close(self) -> None:
        """Release the landmark network; MediaPipe cannot do so by itself while Python ends."""
        if self.landmarker is not None:
            self.landmarker.close()


def swap_name(puppet: ClipBench) -> str:
    """Return the name under which a swap onto a puppet is kept with its driver."""
    return f"swap-{puppet.cache.folder.name}"


def swap_record(tools: Tools, driver: ClipBench, puppet: ClipBench) -> dict[str, Any]:
    """Return what the driver's motion gives on the puppet, against playing the driver's video."""
    name = swap_name(puppet)

    def make() -> dict[str, Any]:
        path = driver.cache.folder / f"{name}.sglat"
        file_variants.swapped(driver.encoded, puppet.encoded, path)
        found: dict[str, Any] = {"driver": driver.name, "puppet": puppet.name}
        shown = driver.shown(path, name)
        identity = tools.judges.identity
        if identity is not None:
            look = embeddings(identity, puppet.reference.pictures).mean(0)
            look /= np.linalg.norm(look)
            for key, pictures in (
                ("identity_loss", shown),
                ("identity_loss_of_driver", driver.reference.pictures),
                ("identity_loss_of_puppet", puppet.reference.pictures),
            ):
                vectors = embeddings(identity, pictures)
                target = np.broadcast_to(look, vectors.shape)
                found[key] = float(identity_losses(vectors, target).mean())
        signals = driver.reference.signals
        if tools.landmarker is not None and signals is not None:
            side = driver.parsed.header.resolution
            for key, pictures in (
                ("", driver.shown_window(path, name)),
                ("own_", driver.shown_window(driver.encoded, "ours")),
            ):
                seen = compare(tools.landmarker.watch(pictures), signals, side=side)
                found |= {key + metric: value for metric, value in seen.items()}
        return found

    record: dict[str, Any] = driver.cache.record(name, make)
    return record


_tools: list[Tools | Failure] = []


def _begin(config: ToolConfig, threads: int) -> None:
    """Load the tools of a process; a failure is kept, since a pool would try again for ever."""
    import torch

    torch.set_num_threads(threads)
    _tools.append(guarded(Tools, config))


def _loaded() -> Tools:
    found: Tools = unwrapped(_tools[0])
    return found


def _clip_task(files: ClipFiles) -> str:
    tools = _loaded()
    clip = tools.clip(files)
    clip_record(clip, tools.anchors)
    print(f"  {clip.name}: measured", file=sys.stderr, flush=True)
    return clip.name


def _swap_task(driver: ClipFiles, puppet: ClipFiles) -> str:
    tools = _loaded()
    swap_record(tools, tools.clip(driver), tools.clip(puppet))
    return driver.video.stem


def _solver_task(files: ClipFiles, count: int, epochs: int, iterations: int) -> dict[str, Any]:
    """Compare the solvers on the middle frames of a clip."""
    from sglat_lab.bench.solvers import compare_solvers, piece_of

    tools = _loaded()
    clip = tools.clip(files)
    if files.work is None:
        raise UsageError("no-work-file", "expected a clip that was encoded in this run")
    first = max(0, (clip.window - count) // 2)
    span = slice(first, first + count)
    signals = clip.reference.signals
    if signals is None or not signals.is_found[span].all():
        raise UsageError("no-landmarks", "expected landmarks on the middle frames, found none")
    bundle = load_bundle(tools.config.bundle)  # one that inference mode has not touched
    piece = piece_of(
        files.encoded, files.work, bundle, np.array(clip.source[span]), signals.points[span], first
    )
    found = compare_solvers(piece, bundle, tools.judges, epochs=epochs, iterations=iterations)
    return {"clip": clip.name, "first_frame": first, **found}


class Crew:
    """Processes that measure clips and swaps into the shared cache.

    Args:
        pool: of processes that have begun.
    """

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def measure(self, clips: Sequence[ClipFiles]) -> None:
        """Measure clips; their records are then in the cache."""
        self._each(_clip_task, [(files,) for files in clips])

    def swap(self, pairs: Sequence[tuple[ClipFiles, ClipFiles]]) -> None:
        """Measure swaps of (driver, puppet)."""
        self._each(_swap_task, pairs)

    def solvers(
        self, files: ClipFiles, *, count: int, epochs: int, iterations: int
    ) -> dict[str, Any]:
        """Compare the solvers on some frames of a clip."""
        (found,) = self._each(_solver_task, [(files, count, epochs, iterations)])
        record: dict[str, Any] = found
        return record

    def _each(self, task: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Do a task for each set of arguments.

        Raises:
            UsageError: what the first failure says.
        """
        return [unwrapped(r) for r in side_by_side(self._pool, task, arguments)]


@contextmanager
def crew(config: ToolConfig, workers: int, threads: int) -> Iterator[Crew]:
    """Give processes with their tools loaded, and end them."""
    with processes(workers, begin=_begin, arguments=(config, threads)) as pool:
        yield Crew(pool)
