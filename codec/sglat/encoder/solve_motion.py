"""Motion of every frame against the tuned person, by the fast solver."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.align import Alignment
from sglat.encoder.gauss_newton import FastSolver, SolverConfig, WindowSolver, medoids
from sglat.encoder.jacobians import Jacobians, picture_effect, take_jacobians
from sglat.encoder.losses import (
    JoinedResidual,
    LandmarkResidual,
    PerceptualResidual,
    PixelResidual,
    Residual,
)
from sglat.encoder.person import TunedPerson
from sglat.encoder.quantize import PictureMetric, SolvedMotion, smoothed
from sglat.encoder.sequential import SequentialConfig, SequentialSolver
from sglat.encoder.solving_side import (
    WIDE_WINDOW,
    frames_at_once,
    shrunk,
    solving_render,
    solving_side,
    tangents_at_once,
)
from sglat.encoder.stages import Made, Runner, Stage, Task
from sglat.encoder.start_motion import StartMotion, comparable, corrected_motion
from sglat.encoder.track import Track, TrackConfig, find_blinks
from sglat.encoder.tune import TuneResult
from sglat.encoder.visible import Visible
from sglat.networks.face_points import feature_weights

Targets = Callable[[NDArray[np.int64]], Tensor]
"""Numbers of frames to pictures `[n, 3, H, W]` on the bundle's device."""


@dataclass(frozen=True, kw_only=True)
class MotionProblem:
    """What the motion of a clip is solved from, besides the person."""

    start: Tensor
    """Initial motion of all frames, `[T, 34]`."""
    tuned: Tensor
    """Motion of the tuning frames, the most different ones first, `[K, 34]`."""
    points: Tensor
    """Landmarks in crop units, `[T, 478, 2]`; on the CPU."""
    breaks: NDArray[np.bool_]
    """Frames before which nothing continues, `[T]`."""
    shown: NDArray[np.int64]
    """Which frame each frame repeats, `[T]`: itself, or where held an earlier one."""
    targets: Targets
    masks: Callable[[NDArray[np.int64]], Tensor | None] = lambda rows: None
    """Numbers of frames to masks `[n, 1, H, W]`, 0 where nothing is compared, or None."""
    inverted: Targets | None = None
    """Renderings of the inverted frames by the tuned generator, where frames are inverted."""
    shut: NDArray[np.bool_] | None = None
    """Frames with a shut eye, `[T]`; None where unknown."""

    @property
    def solved(self) -> NDArray[np.int64]:
        """Numbers of the frames whose motion is solved: those with the face."""
        return np.unique(self.shown)

    @property
    def begins(self) -> NDArray[np.bool_]:
        """Which solved frames do not continue the solved one before them."""
        rows = self.solved
        begins: NDArray[np.bool_] = self.breaks[rows] | (np.diff(rows, prepend=rows[:1]) > 1)
        return begins

    def at_solving_side(self, resolution: int) -> MotionProblem:
        """Return the problem with targets and masks as they are compared."""
        return replace(
            self,
            targets=shrunk(self.targets, resolution),
            masks=shrunk(self.masks, resolution),
        )

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Repeat values of the solved frames over all frames, `[T, ...]`."""
        repeated: NDArray[Any] = values[np.searchsorted(self.solved, self.shown)]
        return repeated


@dataclass(frozen=True, kw_only=True)
class ProblemConfig(Stage[MotionProblem]):
    """What the motion is fitted to, and where it starts."""

    name = "problem"
    phase = "jacobian"
    networks = ("inverter",)

    target: Literal["frame", "inverted"] = "frame"
    """The camera frame, or the tuned generator's rendering of its inversion."""
    correction_noise: float = 0.3
    """See `corrected_motion`."""

    def run(
        self,
        task: Task,
        track: Track,
        aligned: Alignment,
        visible: Visible,
        start: StartMotion,
        chosen: list[int],
        tuned: TuneResult,
        person: TunedPerson,
    ) -> MotionProblem:
        """Correct the initial motion by the tuned frames, and choose the targets."""
        bundle = task.bundle

        def camera(rows: NDArray[np.int64]) -> Tensor:
            return aligned.crops.tensor(rows).to(bundle.device)

        def masks(rows: NDArray[np.int64]) -> Tensor | None:
            found = visible.masks(rows, bundle.resolution)
            return None if found is None else found.to(bundle.device)

        @torch.no_grad()
        def inverted(rows: NDArray[np.int64]) -> Tensor:
            parts = camera(rows).split(8)
            return torch.cat([person.render_latents(bundle.inverter(part)) for part in parts])

        noise = self.correction_noise
        motion = corrected_motion(start.motion, chosen, tuned.motion.cpu(), noise)
        return MotionProblem(
            start=motion.to(bundle.device),
            tuned=tuned.motion,
            points=torch.from_numpy(start.points),
            breaks=track.breaks,
            shown=track.shown,
            targets=camera if self.target == "frame" else inverted,
            masks=masks,
            inverted=inverted,
            shut=shut_frames(track),
        )


def shut_frames(track: Track) -> NDArray[np.bool_]:
    """Return which frames show a shut eye, `[T]`; those beside a blink do not count."""
    at_once = TrackConfig(blink_margin=0)
    return find_blinks(track.openness, track.blendshapes, track.held, at_once)


@dataclass(frozen=True, kw_only=True)
class ResidualConfig:
    """Weights of the residuals of the fast solver."""

    scales: tuple[int, ...] = (1, 4)
    """Pooling factors of the pixels; coarse scales widen the basin of convergence."""
    feature_weight: float = 2.0
    """Extra pixel weight at eyes and mouth."""
    expression_perceptual: float = 0.3
    """Weight of the perceptual distance, most of it at eyes and mouth."""
    expression_landmarks: float = 400.0
    """Weight of the squared distance of the landmarks, in crop units."""


@dataclass(frozen=True, kw_only=True)
class Linearised:
    """A residual and its Jacobians."""

    residual: Residual
    jacobians: Jacobians


@dataclass(frozen=True, kw_only=True)
class Linearisation:
    """Residuals with Jacobians at common linearisation points."""

    expression: Linearised
    """On the whole crop."""


@dataclass(frozen=True, kw_only=True)
class LineariseConfig(Stage[Linearisation]):
    """Where Jacobians are taken first, and of what."""

    name = "linearise"
    version = 3
    phase = "jacobian"
    networks = ("perceptual", "landmarks")

    points: int = 12
    """Linearisation points of a long clip, among the tuning frames."""
    frames_per_point: int = 8
    """Frames of a short clip for each point: more points would cost more time than they save."""
    residual: ResidualConfig = ResidualConfig()

    def run(self, task: Task, person: TunedPerson, problem: MotionProblem) -> Linearisation:
        """Take the Jacobians at those tuning frames that are nearest to the clip's motion."""
        render, points = solving_render(person), problem.points[problem.solved]
        most = tangents_at_once(task.bundle.resolution)
        residual = expression_residual(task.bundle, points, self.residual)
        count = min(self.points, max(2, len(points) // self.frames_per_point))
        start, motion = problem.start[problem.solved], problem.tuned
        if len(motion) > count:
            middle = motion[medoids(comparable(start), 1, comparable(motion))[0]]
            units = picture_effect(render, middle, most)
            motion = motion[medoids(start * units, count, motion * units)]
        (found,) = take_jacobians(
            render, motion, [residual], task.tell, tangents=most, folder=task.work.folder
        )
        return Linearisation(expression=Linearised(residual=residual, jacobians=found))


POLISH: Final = SolverConfig(iterations=2, fresh=0, window=96)
"""After the sweep, with Jacobians of the same clip."""
POLISH_KNOWN: Final = SolverConfig(iterations=0, fresh=4, fresh_iterations=2, window=96)
"""After the sweep, with Jacobians of another clip of the person."""
THOROUGH: Final = SolverConfig(iterations=3, fresh=8, fresh_iterations=3, window=96)
"""With Jacobians at typical frames of each second."""


@dataclass(frozen=True, kw_only=True)
class FastConfig(Stage[Tensor]):
    """How all 34 values are solved by the fast solver."""

    name = "expression"
    version = 3

    solver: SolverConfig = POLISH

    def run(
        self,
        task: Task,
        person: TunedPerson,
        problem: MotionProblem,
        linearisation: Linearisation,
        start: Tensor | None = None,
    ) -> Tensor:
        """Return solved motion `[T, 34]`; without `start` from the initial motion."""
        at = linearisation.expression
        config, side = self.solver, task.bundle.resolution
        if side > WIDE_WINDOW:  # residuals grow with the picture
            fewer = -(-config.window // 4)
            config = replace(
                config, window=fewer, fresh=-(-config.fresh // 4),
                batch=frames_at_once(side, config.batch), tangents=tangents_at_once(side),
            )  # fmt: skip
        solver = FastSolver(solving_render(person), at.jacobians, at.residual, config)
        problem = problem.at_solving_side(side)
        return solve_windows(solver, problem, problem.start if start is None else start, task)


OWN_CLIP: Final = SequentialConfig(anchor=0.0, most_shift=math.inf)
"""Of a person tuned on the same clip, who explains all of it, so that nothing drives the motion
away and the landmark estimate need not hold it."""
KNOWN_CLIP: Final = SequentialConfig()


@dataclass(frozen=True, kw_only=True)
class SweepConfig(Stage[Tensor]):
    """How the person is followed from frame to frame."""

    name = "sweep"

    solver: SequentialConfig = OWN_CLIP
    chunk: int = 24
    """Frames stored together."""

    def run(
        self, task: Task, person: TunedPerson, problem: MotionProblem, linearisation: Linearisation
    ) -> Tensor:
        """Return motion `[T, 34]`; the task keeps chunks, and work continues behind them."""
        at, problem = linearisation.expression, problem.at_solving_side(task.bundle.resolution)
        solver = SequentialSolver(solving_render(person), at.jacobians, at.residual, self.solver)
        store, rows = task.open(), problem.solved
        start = problem.start[rows]
        breaks = problem.begins
        if store.rows:
            done = torch.from_numpy(store.read("motion")).to(start)
            solver.resume(done, start[: len(done)], store.read("loss").tolist())
        for first in range(store.rows, len(rows), self.chunk):
            part = rows[first : first + self.chunk]
            targets, masks = problem.targets(part), problem.masks(part)
            motion, losses = [], []
            for index in range(len(part)):
                if breaks[first + index]:
                    solver.reset()
                one = slice(index, index + 1)
                mask = None if masks is None else masks[one]
                motion.append(solver.step(targets[one], start[first + index], mask))
                losses.append(solver.losses[-1])
            solved = torch.stack(motion).cpu().numpy()
            store.append({"motion": solved, "loss": np.array(losses)})
            task.tell(store.rows, len(rows))
        if not store.is_done:
            store.finish()
        return torch.from_numpy(problem.spread(store.read("motion"))).to(problem.start.device)


@dataclass(frozen=True, kw_only=True)
class SmoothConfig(Stage[SolvedMotion]):
    """How jitter is taken out of the solved motion."""

    name = "smooth"
    version = 3
    phase = "expression"

    strength: float = 0.15
    """See `smoothed`."""

    def run(
        self, task: Task, problem: MotionProblem, linearisation: Linearisation, motion: Tensor
    ) -> SolvedMotion:
        """Smooth the motion; store it too, for other quantizations of the same clip."""
        jacobians = linearisation.expression.jacobians
        calm = smoothed(motion.cpu().numpy(), self.strength, problem.breaks)[problem.shown]
        units = jacobians.picture_effect
        nearest = jacobians.nearest(torch.from_numpy(calm).to(units), units)
        metric = PictureMetric(
            normals=jacobians.normals.cpu().double().numpy(), nearest=nearest.cpu().numpy()
        )
        store = task.open()
        if not store.is_done:
            store.finish({"motion": calm, "normals": metric.normals, "nearest": metric.nearest})
        return SolvedMotion(
            motion=calm, picture_effect=units.cpu().numpy(), metric=metric, shown=problem.shown
        )


def solve_motion(
    run: Runner,
    person: Made[TunedPerson],
    problem: Made[MotionProblem],
    polish: Stage[Tensor] | None,
    *,
    sweep: SequentialConfig = OWN_CLIP,
) -> Made[SolvedMotion]:
    """Solve yaw, pitch and controls of every frame.

    The person is quantized, so that decoding renders what is solved. After a sweep from frame to
    frame, `polish` solves all 34 values again; None leaves it at the sweep.
    """
    linearisation = run(LineariseConfig(), person, problem)
    solved = run(SweepConfig(solver=sweep), person, problem, linearisation)
    if polish is not None:
        solved = run(polish, person, problem, linearisation, solved)
    return run(SmoothConfig(), problem, linearisation, solved)


def expression_residual(bundle: Bundle, points: Tensor, config: ResidualConfig) -> Residual:
    """Return the residual of all 34 values; points are the landmarks of the clip in crop units,
    `[T, 478, 2]`, on the CPU."""
    some = points[:: max(1, len(points) // 32)].to(bundle.device)
    weights = feature_weights(some, solving_side(bundle.resolution), config.feature_weight)
    mean = weights.mean(0, keepdim=True)
    pixels = PixelResidual(mean, config.scales)
    mask = mean / mean.max()
    features = PerceptualResidual(bundle.perceptual, mask, config.expression_perceptual)
    landmarks = LandmarkResidual(bundle.landmarks, points, config.expression_landmarks)
    return JoinedResidual((pixels, features, landmarks))


def solve_windows(
    solver: WindowSolver, problem: MotionProblem, start: Tensor, task: Task
) -> Tensor:
    """Return motion of all frames, `[T, 34]`, solved over the frames with the face from `start`,
    `[T, 34]`.

    The task keeps the windows, and work continues behind those already stored. Windows are
    independent of each other, so a resumed solve ends with the same motion. The solver's frames are
    numbered without the held ones.
    """
    store, rows = task.open(), problem.solved

    def targets(first: int, last: int) -> Tensor:
        return problem.targets(rows[first:last])

    def masks(first: int, last: int) -> Tensor | None:
        return problem.masks(rows[first:last])

    for motion in solver.solve(targets, start[rows], first=store.rows, masks=masks):
        store.append({"motion": motion.cpu().numpy()})
        task.tell(store.rows, len(rows))
    if not store.is_done:
        store.finish()
    return torch.from_numpy(problem.spread(store.read("motion"))).to(start.device)
