"""Stages 6 and 7: the numbers of every frame against the tuned generator, pose first, then all
34."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.crops import rigid_face_mask
from sglat.encoder.gauss_newton import Anchors, FastSolver, SolverConfig, take_anchors
from sglat.encoder.paper_solver import PaperConfig, PaperSolver
from sglat.encoder.person import TunedPerson
from sglat.encoder.quantize import PictureMetric, smoothed
from sglat.encoder.residuals import (
    JoinedResidual,
    LandmarkResidual,
    PerceptualResidual,
    PixelResidual,
    Residual,
)
from sglat.encoder.workfile import Stage
from sglat.networks.face_regions import feature_weights
from sglat.networks.faces import FaceAnalysis

FRAMES_AN_ANCHOR: Final = 12
"""So that Jacobians do not cost a short clip more than they gain it."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Solved motion and how visible its errors are."""

    motion: NDArray[np.float32]
    """`[T, 34]`."""
    picture_effect: NDArray[np.float32]
    """Root mean square picture change per unit of each number, `[34]`."""
    metric: PictureMetric


Targets = Callable[[int, int], Tensor]
"""Frames first to last (exclusive) to pictures `[n, 3, H, W]`."""


class OpenStage(Protocol):
    """Opens a stage of the work file."""

    def __call__(self, name: str, *configs: object) -> Stage:
        """Return the stage, emptied if it was made with other settings."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How the numbers are solved."""

    solver: Literal["fast", "paper"] = "fast"
    anchors: int = 8
    """Frames at which Jacobians are taken to begin with; fewer in short clips."""
    pose: SolverConfig = SolverConfig(  # noqa: RUF009
        iterations=3, fresh=0, active=(0, 1), weight_inter_frame=0.0, weight_prior=1e-2
    )
    """Yaw and pitch on the rigid face (method, section 8)."""
    expression: SolverConfig = SolverConfig()  # noqa: RUF009
    """All 34 numbers on the whole crop."""
    paper: PaperConfig = PaperConfig()  # noqa: RUF009
    feature_weight: float = 2.0
    """Extra residual weight at eyes and mouth."""
    expression_perceptual: float = 0.3
    """Weight of the perceptual distance, most of it at eyes and mouth, in the expression stage."""
    expression_landmarks: float = 400.0
    """Weight of the squared distance of the landmarks, in crop units, in the expression stage."""
    pose_perceptual: float = 1.0
    """Weight of the perceptual distance over the rigid face in the pose stage (section 8.1)."""
    smooth: float = 0.2
    """How much the trembling of the solved numbers is taken out (see `smoothed`)."""
    pose_floor: float = 0.02
    """Weight of the rest of the crop in the pose stage."""


def fit_numbers(
    person: TunedPerson,
    *,
    start: Tensor,
    anchors: Tensor,
    points: Tensor,
    cuts: NDArray[np.bool_],
    targets: Targets,
    bundle: Bundle,
    faces: FaceAnalysis,
    config: FitConfig,
    open_stage: OpenStage,
    progress: Callable[[str, int, int], None] | None,
    clock: Callable[[str], None],
) -> Fitted:
    """Solve yaw, pitch and controls of every frame on the bundle's device.

    Args:
        person: quantized and tuned; what is solved is what will be decoded.
        start: start values of all frames, `[T, 34]`.
        anchors: motion of the tuning frames, `[K, 34]`.
        points: landmarks in crop units, `[T, 478, 2]`; stay on the CPU.
        cuts: frames that begin a new scene, `[T]`.
        targets: what the numbers are fitted to, on the bundle's device.
        bundle: perceptual network and controls.
        faces: parsing and identity, for the paper's solver.
        config: solvers.
        open_stage: gives work-file stages.
        progress: told of every stage.
        clock: called with a stage's name when it is over.
    """

    def tell(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(stage, done, total) if progress else None

    start, anchors = start.to(bundle.device), anchors.to(bundle.device)
    mask = rigid_face_mask(points[0].numpy(), bundle.resolution)
    rigid = torch.from_numpy(mask).float()[None, None].to(bundle.device)
    expression = expression_residual(bundle, points, config)
    pose = JoinedResidual(
        (
            PixelResidual(rigid + config.pose_floor, config.pose.scales),
            PerceptualResidual(bundle.perceptual, rigid, config.pose_perceptual),
        )
    )
    count = min(config.anchors, max(2, len(start) // FRAMES_AN_ANCHOR))
    spread = anchors[_spread_rows(len(anchors), count)]
    render = person.render_quickly
    pose_anchors, all_anchors = take_anchors(render, spread, (pose, expression), tell("jacobian"))
    clock("jacobian")
    stage = open_stage("pose", config.pose, config.anchors, config.pose_perceptual)
    turned = _run(
        FastSolver(render, pose_anchors, pose, config.pose), targets, start, stage,
        tell("pose"),
    )  # fmt: skip
    clock("pose")
    if config.solver == "paper":
        stage = open_stage("expression", config.paper)
        solver = PaperSolver(person, bundle, faces, points, config.paper)
        motion = _run(solver, targets, turned, stage, tell("expression"))
    else:
        stage = open_stage(
            "expression", config.expression, config.expression_perceptual,
            config.expression_landmarks,
        )  # fmt: skip
        fast = FastSolver(render, all_anchors, expression, config.expression)
        motion = _run(fast, targets, turned, stage, tell("expression"))
    clock("expression")
    calm = smoothed(motion.cpu().numpy(), config.smooth, cuts)
    metric = _picture_metric(all_anchors, torch.from_numpy(calm).to(motion.device))
    stage = open_stage("fitted", config.smooth)
    if not stage.is_done:  # for whoever wants to round it in another way
        stage.finish({"motion": calm, "normals": metric.normals, "nearest": metric.nearest})
    effect = all_anchors.picture_effect.cpu().numpy()
    return Fitted(motion=calm, picture_effect=effect, metric=metric)


def _picture_metric(anchors: Anchors, motion: Tensor) -> PictureMetric:
    units = anchors.picture_effect
    nearest = torch.cdist(motion * units, anchors.motion * units).argmin(1)
    normals = anchors.normals.cpu().double().numpy()
    return PictureMetric(normals=normals, nearest=nearest.cpu().numpy())


def expression_residual(bundle: Bundle, points: Tensor, config: FitConfig) -> Residual:
    """Return what the fast solver makes small in the expression stage.

    Args:
        bundle: perceptual network and resolution.
        points: landmarks of the clip in crop units, `[T, 478, 2]`.
        config: weights and scales.
    """
    some = points[:: max(1, len(points) // 32)].to(bundle.device)
    weights = feature_weights(some, bundle.resolution, config.feature_weight)
    mean = weights.mean(0, keepdim=True)
    pixels = PixelResidual(mean, config.expression.scales)
    looks = PerceptualResidual(bundle.perceptual, mean / mean.max(), config.expression_perceptual)
    seen = LandmarkResidual(bundle.landmarks, points, config.expression_landmarks)
    return JoinedResidual((pixels, looks, seen))


def _run(
    solver: FastSolver | PaperSolver,
    targets: Targets,
    start: Tensor,
    stage: Stage,
    tell: Callable[[int, int], None],
) -> Tensor:
    """Run a solver window by window, continuing behind what the stage holds."""
    done = torch.from_numpy(stage.read("motion")).to(start.device) if stage.rows else None
    for numbers in solver.solve(targets, start, done=done):
        stage.append({"motion": numbers.cpu().numpy()})
        tell(stage.rows, len(start))
    if not stage.is_done:
        stage.finish()
    return torch.from_numpy(stage.read("motion")).to(start.device)


def _spread_rows(count: int, wanted: int) -> list[int]:
    """The tuning frames were chosen farthest first: the first ones are the most different."""
    return list(range(min(count, wanted)))


__all__ = ["Anchors", "FitConfig", "Fitted", "fit_numbers"]
