"""Start values of the 34 numbers: what landmarks, the inverter or tuned frames say of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.placement import frame_to_crop, transform_points
from sglat.encoder.invert import Inversion
from sglat.encoder.track import Track

DEGREES_A_SIGMA: Final = 4.0
"""Of yaw or pitch; as visible as one sigma of a control, four times over."""
CORRECTION_NOISE: Final = 0.3
"""Of what tuning found at a frame, as a variance relative to what frames have in common."""


def crop_points(track: Track, placement: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the landmarks in crop units (0 to 1), `[T, 478, 2]`."""
    return transform_points(frame_to_crop(placement), track.points).astype(np.float32)


@torch.no_grad()
def start_numbers(
    bundle: Bundle, track: Track, points: NDArray[np.float32], inversion: Inversion, id_row: int
) -> Tensor:
    """Return start values of yaw, pitch (degrees) and controls, `[T, 34]`, on the CPU.

    A bundle with a motion estimator reads the controls off the landmarks; without one, the
    inverter's codes are projected onto the controls by least squares, relative to the ID frame.
    """
    pose = torch.from_numpy(track.pose[:, :2].astype(np.float32))
    if bundle.has("estimator"):
        shapes = torch.from_numpy(track.blendshapes.astype(np.float32))
        seen = (values.to(bundle.device) for values in (torch.from_numpy(points), shapes, pose))
        return torch.cat([pose, bundle.module("estimator")(*seen).cpu()], 1)
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


def signature(numbers: Tensor) -> Tensor:
    """Return motion in comparable units for choosing frames, `[T, 34]`: about one sigma each."""
    scaled = numbers.clone()
    scaled[:, :2] /= DEGREES_A_SIGMA
    return scaled


def corrected_numbers(start: Tensor, chosen: Sequence[int], tuned: Tensor) -> Tensor:
    """Return start values `[T, 34]` corrected by what tuning found at some frames.

    What landmarks say of a movement and what the tuned person takes to show it differ, and from
    movement to movement differently: beyond the shift that all frames share, a frame is corrected
    as those that move alike, by Gaussian process regression (Rasmussen and Williams 2006,
    http://gaussianprocess.org/gpml/, equation 2.23) with a squared exponential kernel as wide as
    the usual distance of two tuned frames. A frame unlike all of them keeps the shift alone.

    Args:
        start: what was known before tuning, `[T, 34]`.
        chosen: frames that were tuned on.
        tuned: their motion after tuning, `[K, 34]`.
    """
    rows = list(chosen)
    shifted = start + (tuned - start[rows]).median(0).values
    places = signature(shifted)
    lacking = signature(tuned) - places[rows]
    between = torch.cdist(places[rows], places[rows])
    apart = between[between > 0]
    if not len(apart):
        return shifted
    width = apart.median()
    likeness = torch.exp(-0.5 * (torch.cdist(places, places[rows]) / width).square())
    known = likeness[rows] + CORRECTION_NOISE * torch.eye(len(rows))
    correction: Tensor = likeness @ torch.linalg.solve(known, lacking)
    correction[:, :2] *= DEGREES_A_SIGMA
    return shifted + correction
