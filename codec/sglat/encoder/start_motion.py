"""Initial motion estimates from landmarks or inverter latents, corrected by tuned frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.placement import frame_to_crop, transform_points
from sglat.encoder.align import Alignment
from sglat.encoder.invert import Inversion, Selection
from sglat.encoder.stages import Stage, Task
from sglat.encoder.track import Track
from sglat.errors import UsageError

SIGMA_DEGREES: Final = 4.0
"""Yaw or pitch that counts as much as one sigma of a control: about four times as visible."""


@dataclass(frozen=True, kw_only=True)
class StartMotion:
    """Initial motion of all frames, on the CPU."""

    points: NDArray[np.float32]
    """Landmarks in crop units (0 to 1), `[T, 478, 2]`."""
    motion: Tensor
    """Yaw, pitch (degrees) and controls, `[T, 34]`."""


@dataclass(frozen=True, kw_only=True)
class StartConfig(Stage[StartMotion]):
    """Initial motion has no settings."""

    name = "start"
    phase = "refine"
    networks = ("estimator", "synthesizer")

    def run(
        self,
        task: Task,
        track: Track,
        aligned: Alignment,
        inversion: Inversion | None,
        selection: Selection | None,
    ) -> StartMotion:
        """See `start_motion`; a bundle with a motion estimator needs no inversion."""
        to_crop = frame_to_crop(aligned.placement)
        points = transform_points(to_crop, track.points).astype(np.float32)
        motion = start_motion(
            task.bundle, track, points, inversion, 0 if selection is None else selection.row
        )
        return StartMotion(points=points, motion=motion)


@torch.no_grad()
def start_motion(
    bundle: Bundle,
    track: Track,
    points: NDArray[np.float32],
    inversion: Inversion | None,
    id_row: int,
) -> Tensor:
    """Return initial values of yaw, pitch (degrees) and controls, `[T, 34]`, on the CPU.

    A bundle with a motion estimator maps landmarks to controls; without one, the inverter's latents
    are projected onto the controls by least squares, relative to the ID frame.
    """
    pose = torch.from_numpy(track.pose[:, :2].astype(np.float32))
    if bundle.has("estimator"):
        shapes = torch.from_numpy(track.blendshapes.astype(np.float32))
        inputs = (values.to(bundle.device) for values in (torch.from_numpy(points), shapes, pose))
        return torch.cat([pose, bundle.module("estimator")(*inputs).cpu()], 1)
    if inversion is None:
        raise UsageError("no-estimator", "expected inverted frames where no estimator is")
    return torch.cat([pose, _projected(bundle, inversion, id_row, len(track))], 1)


def _projected(bundle: Bundle, inversion: Inversion, id_row: int, count: int) -> Tensor:
    styles = bundle.generator.styles(torch.from_numpy(inversion.ws).to(bundle.device))
    flat = torch.cat(styles, 1).cpu()
    matrix = bundle.controls.matrix.cpu()
    offsets = flat - flat[id_row]
    normal = matrix @ matrix.T + 1e-3 * torch.eye(len(matrix))
    values = torch.linalg.solve(normal, matrix @ offsets.T).T.numpy()
    frames = np.arange(count)
    columns = [np.interp(frames, inversion.frames, column) for column in values.T]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))


def comparable(motion: Tensor) -> Tensor:
    """Return motion `[T, 34]` in units of equal visibility, about one sigma of a control each."""
    scaled = motion.clone()
    scaled[:, :2] /= SIGMA_DEGREES
    return scaled


def corrected_motion(start: Tensor, chosen: Sequence[int], tuned: Tensor, noise: float) -> Tensor:
    """Return initial motion `[T, 34]` corrected by the motion `[K, 34]` of some frames after
    tuning.

    The estimate from landmarks differs from the motion that the tuned person needs, by a shift that
    all frames share and by an amount that varies with the motion. The latter is interpolated by
    Gaussian process regression (Rasmussen and Williams 2006, http://gaussianprocess.org/gpml/,
    equation 2.23) with a squared exponential kernel as wide as the median distance of two tuned
    frames. A frame far from all tuned frames gets the shift alone. The noise is the variance of the
    tuned motion of a frame, relative to the variance that frames share.
    """
    rows = list(chosen)
    shifted = start + (tuned - start[rows]).median(0).values
    places = comparable(shifted)
    residual = comparable(tuned) - places[rows]
    between = torch.cdist(places[rows], places[rows])
    apart = between[between > 0]
    if not len(apart):
        return shifted
    width = apart.median()
    kernel = torch.exp(-0.5 * (torch.cdist(places, places[rows]) / width).square())
    known = kernel[rows] + noise * torch.eye(len(rows))
    correction: Tensor = kernel @ torch.linalg.solve(known, residual)
    correction[:, :2] *= SIGMA_DEGREES
    return shifted + correction
