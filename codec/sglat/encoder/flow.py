"""Robust affine optical flow of the rigid face (Black and Yacoob), coarse to fine.

Source: Black & Yacoob 1997, Recognizing Facial Expressions in Image Sequences Using Local
Parameterized Models of Image Motion, IJCV 25:23-48, equations 1, 4 and 5; solved here by
iteratively reweighted least squares on the key frame's gradients instead of coordinate-wise SOR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
CONVERGED_PIXELS: Final = 0.005  # a step that moves no corner further ends the level
MIN_PIXELS: Final = 60  # six unknowns; ten equations each


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Constants of the original tool."""

    coarsest: int = 32
    """Side in pixels of the smallest pyramid level."""
    iterations: int = 12
    """Per level, at most."""
    sigma_start: float = 25.0 * 3**0.5
    """Grey levels at which an error starts to count as an outlier, first iteration."""
    sigma_end: float = 15.0 * 3**0.5
    sigma_rate: float = 0.95
    """Factor per iteration."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    grey: Float32  # [S, S]
    steepest: Float32  # [P, 6] derivative of each masked pixel by the six parameters
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


class KeyFrame:
    """A key frame prepared for registration: pyramid, gradients and mask.

    Args:
        crop: `[S, S, 3]` float32 RGB, 0 to 255.
        mask: `[S, S]` bool, the rigid face.
        config: the solver's constants.
    """

    def __init__(self, crop: Float32, mask: NDArray[np.bool_], config: FlowConfig) -> None:
        self.config = config
        self.crop = crop
        self.mask = mask
        self._levels = [
            _prepare(grey, level_mask)
            for grey, level_mask in zip(
                _pyramid(crop @ LUMA, config.coarsest),
                _mask_pyramid(mask, config.coarsest),
                strict=True,
            )
        ]

    def register(self, crop: Float32) -> Float64:
        """Return the affine map that takes key-frame positions to positions in `crop`.

        Args:
            crop: `[S, S, 3]` float32 RGB, 0 to 255.

        Returns:
            `[2, 3]` in unit crop coordinates: sampling `crop` there gives the key frame.
        """
        matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
        pyramid = _pyramid(crop @ LUMA, self.config.coarsest)
        for level, grey in zip(self._levels, pyramid, strict=True):
            matrix = self._refine(level, grey, matrix)
        return matrix

    def residual(self, crop: Float32) -> float:
        """Return the mean squared RGB difference to the key frame over the rigid face."""
        difference = crop[self.mask] - self.crop[self.mask]
        return float(np.mean(np.square(difference)))

    def _refine(self, level: _Level, grey: Float32, matrix: Float64) -> Float64:
        if len(level.rows) < MIN_PIXELS:
            return matrix
        side = grey.shape[0]
        sigma = self.config.sigma_start
        target = level.grey[level.rows, level.columns]
        for _ in range(self.config.iterations):
            warped = warp(grey, matrix)[level.rows, level.columns]
            error = warped - target
            weight = sigma**2 / (sigma**2 + np.square(error)) ** 2  # Geman-McClure
            weighted = level.steepest * weight[:, None]
            normal = weighted.T @ level.steepest + 1e-9 * np.eye(6, dtype=np.float32)
            step = np.linalg.solve(normal.astype(np.float64), (weighted.T @ error).astype(float))
            matrix = _compose_inverse(matrix, step)
            sigma = max(sigma * self.config.sigma_rate, self.config.sigma_end)
            if np.abs(step).sum() * side < CONVERGED_PIXELS:
                break
        return matrix


def warp(picture: Float32, matrix: Float64) -> Float32:
    """Sample a picture `[S, S]` or `[S, S, 3]` at mapped unit coordinates, bilinearly."""
    side = picture.shape[0]
    pixels = np.array(matrix, dtype=np.float64)
    # unit coordinates to pixel indices on both sides: index = side · unit - 0.5
    pixels[:, 2] = side * matrix[:, 2] + 0.5 * matrix[:, :2].sum(axis=1) - 0.5
    warped = cv2.warpAffine(
        picture,
        pixels,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(warped, dtype=np.float32)


def _prepare(grey: Float32, mask: NDArray[np.bool_]) -> _Level:
    side = grey.shape[0]
    down, right = np.gradient(grey * side)  # per unit of the crop
    rows, columns = np.nonzero(mask)
    x, y = (columns + 0.5) / side - 0.5, (rows + 0.5) / side - 0.5
    gx, gy = right[rows, columns], down[rows, columns]
    steepest = np.stack([gx, gx * x, gx * y, gy, gy * x, gy * y], axis=1).astype(np.float32)
    return _Level(grey=grey, steepest=steepest, rows=rows, columns=columns)


def _compose_inverse(matrix: Float64, step: Float64) -> Float64:
    """Return `matrix` after undoing a small affine motion a0..a5 about the centre."""
    a0, a1, a2, a3, a4, a5 = step
    linear = np.array([[1 + a1, a2], [a4, 1 + a5]])
    offset = np.array([a0, a3]) + 0.5 - linear @ np.array([0.5, 0.5])
    inverse = np.linalg.inv(linear)
    moved = matrix[:, :2] @ inverse
    return np.concatenate([moved, (matrix[:, 2] - moved @ offset)[:, None]], axis=1)


def _pyramid(grey: Float32, coarsest: int) -> list[Float32]:
    levels: list[Any] = [cv2.GaussianBlur(np.ascontiguousarray(grey), (0, 0), 0.8)]
    while levels[-1].shape[0] // 2 >= coarsest:
        levels.append(cv2.pyrDown(levels[-1]))
    return levels[::-1]


def _mask_pyramid(mask: NDArray[np.bool_], coarsest: int) -> list[NDArray[np.bool_]]:
    levels = [mask]
    while levels[-1].shape[0] // 2 >= coarsest:
        side = levels[-1].shape[0] // 2
        levels.append(np.asarray(levels[-1].reshape(side, 2, side, 2).all(axis=(1, 3))))
    return levels[::-1]
