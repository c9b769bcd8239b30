"""Start values of the 34 numbers: what landmarks or the inverter already know of every frame."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.placement import frame_to_crop, transform_points
from sglat.encoder.invert import Inversion
from sglat.encoder.track import Track


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
    scaled[:, :2] /= 4.0  # degrees; as visible as one sigma of a control, four times over
    return scaled
