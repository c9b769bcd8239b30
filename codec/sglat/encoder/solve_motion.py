"""Motion of every frame against the tuned person: yaw and pitch first, then all 34 values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.align import Alignment
from sglat.encoder.crops import rigid_face_mask
from sglat.encoder.gauss_newton import (
    FastSolver,
    Jacobians,
    SolverConfig,
    WindowSolver,
    take_jacobians,
)
from sglat.encoder.losses import (
    JoinedResidual,
    LandmarkResidual,
    PerceptualResidual,
    PixelResidual,
    Residual,
)
from sglat.encoder.person import TunedPerson
from sglat.encoder.quantize import PictureMetric, SolvedMotion, smoothed
from sglat.encoder.stages import Made, Runner, Stage, Task
from sglat.encoder.start_motion import StartMotion, corrected_motion
from sglat.encoder.track import Track
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

    @property
    def solved(self) -> NDArray[np.int64]:
        """Numbers of the frames whose motion is solved: those with the face."""
        return np.unique(self.shown)

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
        )


@dataclass(frozen=True, kw_only=True)
class ResidualConfig:
    """Weights of the residuals of the fast solver."""

    scales: tuple[int, ...] = (1, 4)
    """Pooling factors of the pixels; coarse scales widen the basin of convergence."""
    pose_floor: float = 0.02
    """Pose: weight of the pixels outside the rigid face."""
    pose_perceptual: float = 1.0
    """Pose: weight of the perceptual distance over the rigid face (method, section 8.1)."""
    feature_weight: float = 2.0
    """Expression: extra pixel weight at eyes and mouth."""
    expression_perceptual: float = 0.3
    """Expression: weight of the perceptual distance, most of it at eyes and mouth."""
    expression_landmarks: float = 400.0
    """Expression: weight of the squared distance of the landmarks, in crop units."""


@dataclass(frozen=True, kw_only=True)
class Linearised:
    """A residual and its Jacobians."""

    residual: Residual
    jacobians: Jacobians


@dataclass(frozen=True, kw_only=True)
class Linearisation:
    """Residuals of both stages with Jacobians at common linearisation points."""

    pose: Linearised
    """On the rigid face (method, section 8)."""
    expression: Linearised
    """On the whole crop."""


@dataclass(frozen=True, kw_only=True)
class LineariseConfig(Stage[Linearisation]):
    """Where Jacobians are taken first, and of what."""

    name = "linearise"
    version = 2
    phase = "jacobian"
    networks = ("perceptual", "landmarks")

    points: int = 8
    """Linearisation points of a long clip, among the tuning frames."""
    frames_per_point: int = 12
    """Frames of a short clip for each point: more points would cost more time than they save."""
    residual: ResidualConfig = ResidualConfig()

    def run(self, task: Task, person: TunedPerson, problem: MotionProblem) -> Linearisation:
        """Take the Jacobians of both residuals at the most different tuning frames."""
        points = problem.points[problem.solved]
        pose = pose_residual(task.bundle, points, self.residual)
        expression = expression_residual(task.bundle, points, self.residual)
        count = min(self.points, max(2, len(points) // self.frames_per_point))
        motion = problem.tuned[:count]
        found = take_jacobians(person.render_fast, motion, (pose, expression), task.tell)
        return Linearisation(
            pose=Linearised(residual=pose, jacobians=found[0]),
            expression=Linearised(residual=expression, jacobians=found[1]),
        )


@dataclass(frozen=True, kw_only=True)
class FastConfig(Stage[Tensor]):
    """How all 34 values are solved by the fast solver."""

    name = "expression"
    version = 2

    solver: SolverConfig = SolverConfig()  # noqa: RUF009

    def run(
        self,
        task: Task,
        person: TunedPerson,
        problem: MotionProblem,
        linearisation: Linearisation,
        start: Tensor | None = None,
    ) -> Tensor:
        """Return solved motion `[T, 34]`; without `start` from the initial motion."""
        at: Linearised = getattr(linearisation, self.name)
        solver = FastSolver(person.render_fast, at.jacobians, at.residual, self.solver)
        return solve_windows(solver, problem, problem.start if start is None else start, task)


@dataclass(frozen=True, kw_only=True)
class PoseConfig(FastConfig):
    """How yaw and pitch are solved."""

    name = "pose"

    solver: SolverConfig = SolverConfig(  # noqa: RUF009
        iterations=3, fresh=0, active=(0, 1), weight_prior=1e-2
    )


@dataclass(frozen=True, kw_only=True)
class SmoothConfig(Stage[SolvedMotion]):
    """How jitter is taken out of the solved motion."""

    name = "smooth"
    version = 2
    phase = "expression"

    strength: float = 0.2
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
    expression: Stage[Tensor],
) -> Made[SolvedMotion]:
    """Solve yaw, pitch and controls of every frame.

    The person is quantized, so that decoding renders what is solved. `expression`, a `FastConfig`
    or `PaperConfig`, solves all 34 values.
    """
    linearisation = run(LineariseConfig(), person, problem)
    turned = run(PoseConfig(), person, problem, linearisation)
    solved = run(expression, person, problem, linearisation, turned)
    return run(SmoothConfig(), problem, linearisation, solved)


def pose_residual(bundle: Bundle, points: Tensor, config: ResidualConfig) -> Residual:
    """Return the residual of yaw and pitch; arguments as for `expression_residual`."""
    mask = rigid_face_mask(points[0].numpy(), bundle.resolution)
    rigid = torch.from_numpy(mask).float()[None, None].to(bundle.device)
    pixels = PixelResidual(rigid + config.pose_floor, config.scales)
    features = PerceptualResidual(bundle.perceptual, rigid, config.pose_perceptual)
    return JoinedResidual((pixels, features))


def expression_residual(bundle: Bundle, points: Tensor, config: ResidualConfig) -> Residual:
    """Return the residual of all 34 values; points are the landmarks of the clip in crop units,
    `[T, 478, 2]`, on the CPU."""
    some = points[:: max(1, len(points) // 32)].to(bundle.device)
    weights = feature_weights(some, bundle.resolution, config.feature_weight)
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
