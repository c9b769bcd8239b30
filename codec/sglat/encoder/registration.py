"""Registration of the rigid face to key frames by robust affine optical flow, coarse to fine.

Source: Black & Yacoob 1997, Recognizing Facial Expressions in Image Sequences Using Local
Parameterized Models of Image Motion, IJCV 25:23-48, equations 1, 4 and 5; solved here by
iteratively reweighted least squares on the key frame's gradients instead of coordinate-wise SOR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.decoder.placement import (
    SIZE,
    crop_to_frame,
    frame_to_crop,
    placement_from_matrix,
    transform_points,
)
from sglat.encoder.crops import crop_picture, inside_mask, rigid_face_mask
from sglat.encoder.track import Track, Tracked
from sglat.encoder.workfile import Store
from sglat.media.reader import Clip, VideoReader

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LUMA: Final = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
CONVERGED_PIXELS: Final = 0.005  # a step that moves no corner further ends the level
MIN_PIXELS: Final = 60  # six unknowns; ten equations each
LEAST_SIDE: Final = 128  # pixels: an eye is a dozen wide
NO_STEP: Final = np.full(4, np.nan)
NO_WARP: Final = np.array([[1.0, 0, 0], [0, 1, 0]])


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Constants of the flow, as published."""

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
class RegistrationConfig:
    """When a frame counts as registered, and when a new key frame begins."""

    residual_facing: float = 45.0
    """Mean squared RGB error over the rigid face above which a new key frame begins."""
    residual_turning: float = 30.0
    """The same once yaw or pitch have changed by `turn_degrees` or more."""
    turn_degrees: float = 2.0
    turn_since: Literal["key", "frame"] = "key"
    """Whether they are compared with the key frame or with the frame before. The paper speaks of
    the change between frames; the key frame also counts slow turns."""
    side: int = 128
    """Of the crops that are registered, in pixels (see `side_within`)."""
    flow: FlowConfig = FlowConfig()


def side_within(resolution: int) -> int:
    """Return the side of the registered crops for crops of a resolution, in pixels: half of it, so
    that the precision is a share of the crop, and at least 128."""
    return max(LEAST_SIDE, resolution // 2)


def register_video(
    path: Path | Clip,
    track: Track,
    framed: Float64,
    store: Store,
    config: RegistrationConfig,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Register every tracked frame to its key frame, continuing behind the stored rows.

    `framed` is the placement of each frame by landmarks, `[T, 4]`. The store keeps one row a frame,
    with the fields of `RegisteredRow`. Progress counts to 2T, for another pass follows.
    """
    register = Registration(track, framed, config)
    done = store.rows
    if done:
        register.key_index = int(store.read("key_frame", done - 1)[0])

    def rows(reader: VideoReader) -> Iterator[list[dict[str, Any]]]:
        for frame in reader:
            if frame.index >= len(track):
                break
            if frame.index < done:
                register.replay(frame.index, frame.picture, last=done - 1)
                continue
            yield [vars(register.step(frame.index, frame.picture))]
            if progress is not None:
                progress(frame.index + 1, 2 * len(track))

    with VideoReader(path) as reader:
        store.extend(rows(reader))
    store.finish()


@dataclass(frozen=True, kw_only=True)
class RegisteredRow:
    """Registration of one frame; fields as in `join`."""

    placement: Float64
    key_frame: int
    is_registered: bool = False
    """The flow was used: it beat no warp and stayed below its limit."""
    step: Float64


class Registration:
    """Registers frame after frame to the current key frame."""

    def __init__(self, track: Tracked, framed: Any, config: RegistrationConfig) -> None:
        self.track = track
        self.framed = framed
        self.config = config
        self.key_index = -1
        self._key: KeyFrame | None = None
        self.previous: tuple[int, Float32] | None = None

    def step(self, index: int, picture: NDArray[np.uint8]) -> RegisteredRow:
        """Register a frame."""
        framed = self.framed[index]
        if self.track.held[index]:
            self._key = self.previous = None
            return RegisteredRow(placement=framed, key_frame=self.key_index, step=NO_STEP)
        if self.track.breaks[index]:
            self._key = self.previous = None
        crop = self._crop(index, picture)
        row = self._register(index, crop)
        self.previous = (index, crop)
        return row

    def replay(self, index: int, picture: NDArray[np.uint8], *, last: int) -> None:
        """Rebuild the state of a resumed run from a frame that is already done."""
        if index == self.key_index:
            self.begin(index, self._crop(index, picture))
        if index == last and not self.track.held[index]:
            self.previous = (index, self._crop(index, picture))

    def _register(self, index: int, crop: Float32) -> RegisteredRow:
        framed = self.framed[index]
        if self._key is not None:
            inside = self._inside(index)
            key_to_crop = self._key.register(crop, inside)
            if self._key.residual(crop, key_to_crop, inside) <= self._limit(index):
                kept = self._key.residual(crop, _similarity(key_to_crop), inside)
                wins = kept < self._key.residual(crop, inside=inside)
                return RegisteredRow(
                    placement=_moved(framed, key_to_crop) if wins else framed,
                    key_frame=self.key_index,
                    is_registered=wins,
                    step=NO_STEP if wins else self._link(index, crop),
                )
        step = self._link(index, crop)
        self.begin(index, crop)
        return RegisteredRow(placement=framed, key_frame=index, step=step)

    def _link(self, index: int, crop: Float32) -> Float64:
        """Return the step from the frame before by registration to it, or NaN."""
        if self.previous is None:
            return NO_STEP
        before, crop_before = self.previous
        key = KeyFrame(crop_before, self._mask(before), self.config.flow)
        inside = self._inside(index)
        before_to_crop = key.register(crop, inside)
        moved = key.residual(crop, _similarity(before_to_crop), inside)
        if moved >= key.residual(crop, inside=inside) or moved > self.config.residual_facing:
            return NO_STEP
        placement = _moved(self.framed[index], before_to_crop)
        step: Float64 = (scaled(placement[None]) - scaled(self.framed[before][None]))[0]
        return step

    def begin(self, index: int, crop: Float32) -> None:
        """Make a frame, framed by its landmarks, the key frame of those that follow."""
        self._key = KeyFrame(crop, self._mask(index), self.config.flow)
        self.key_index = index

    def _mask(self, index: int) -> NDArray[np.bool_]:
        inverse = frame_to_crop(self.framed[index])
        points = transform_points(inverse, self.track.points[index].astype(np.float64))
        mask = rigid_face_mask(points, self.config.side)
        return mask if (inside := self._inside(index)) is None else mask & inside

    def _inside(self, index: int) -> NDArray[np.bool_] | None:
        """Return which pixels of a crop lie within the frame, beyond which it is mirrored; None
        where the whole face does."""
        if not self.track.leaving[index]:
            return None
        size = (self.track.width, self.track.height)
        return inside_mask(self.framed[index], size, self.config.side)

    def _crop(self, index: int, picture: NDArray[np.uint8]) -> Float32:
        return crop_picture(picture, self.framed[index], self.config.side).astype(np.float32)

    def _limit(self, index: int) -> float:
        is_from_key = self.config.turn_since == "key"
        since = self.key_index if is_from_key else index - 1  # nothing is registered over a break
        turned = np.abs(self.track.pose[index][:2] - self.track.pose[since][:2])
        turning = bool((turned >= self.config.turn_degrees).any())
        return self.config.residual_turning if turning else self.config.residual_facing


def scaled(placement: Float64) -> Float64:
    """Return the placement with the logarithm of the size, so that steps add up."""
    scaled = placement.copy()
    scaled[:, SIZE] = np.log(scaled[:, SIZE])
    return scaled


def _compose(outer: Float64, inner: Float64) -> Float64:
    """Return the map that applies `inner`, then `outer`, `[2, 3]`."""
    linear = outer[:, :2] @ inner[:, :2]
    composed: Float64 = np.concatenate([linear, outer[:, :2] @ inner[:, 2:] + outer[:, 2:]], axis=1)
    return composed


def _moved(placement: Float64, crop_map: Float64) -> Float64:
    """Return a placement after a map inside its unit crop."""
    return placement_from_matrix(_compose(crop_to_frame(placement), crop_map))


def _similarity(matrix: Float64) -> Float64:
    """Return the similarity part of an affine map of the unit crop, about its centre."""
    return crop_to_frame(placement_from_matrix(matrix))


@dataclass(frozen=True, kw_only=True)
class _Level:
    grey: Float32  # [S, S]
    steepest: Float32  # [P, 6] derivative of each masked pixel by the six parameters
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


class KeyFrame:
    """A key frame `[S, S, 3]`, float32 RGB, 0 to 255, prepared for registration: pyramid, gradients
    and mask `[S, S]` of the rigid face."""

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

    def register(self, crop: Float32, inside: NDArray[np.bool_] | None = None) -> Float64:
        """Return the affine map that takes key-frame positions to positions in `crop`.

        Args:
            crop: `[S, S, 3]` float32 RGB, 0 to 255.
            inside: `[S, S]` pixels of `crop` that are compared; all if None.

        Returns:
            `[2, 3]` in unit crop coordinates: sampling `crop` there gives the key frame.
        """
        matrix = NO_WARP
        pyramid = _pyramid(crop @ LUMA, self.config.coarsest)
        coarsest = self.config.coarsest
        masks = [None] * len(pyramid) if inside is None else _mask_pyramid(inside, coarsest)
        for level, grey, mask in zip(self._levels, pyramid, masks, strict=True):
            matrix = self._refine(level, grey, matrix, mask)
        return matrix

    def residual(
        self, crop: Float32, matrix: Float64 = NO_WARP, inside: NDArray[np.bool_] | None = None
    ) -> float:
        """Return the mean squared RGB difference to the key frame over the rigid face.

        Args:
            crop: `[S, S, 3]`.
            matrix: where it is sampled, as `register` returns it.
            inside: `[S, S]` pixels of `crop` that are compared; all if None.

        Returns:
            Infinity if nothing can be compared.
        """
        mask = self.mask if inside is None else self.mask & _warped_mask(inside, matrix)
        sampled = crop if matrix is NO_WARP else warp(crop, matrix)
        difference = sampled[mask] - self.crop[mask]
        return float(np.mean(np.square(difference))) if mask.any() else float("inf")

    def _refine(
        self, level: _Level, grey: Float32, matrix: Float64, inside: NDArray[np.bool_] | None
    ) -> Float64:
        if len(level.rows) < MIN_PIXELS:
            return matrix
        side = grey.shape[0]
        sigma = self.config.sigma_start
        target = level.grey[level.rows, level.columns]
        for _ in range(self.config.iterations):
            warped = warp(grey, matrix)[level.rows, level.columns]
            error = warped - target
            weight = sigma**2 / (sigma**2 + np.square(error)) ** 2  # Geman-McClure
            if inside is not None:
                shown = _warped_mask(inside, matrix)[level.rows, level.columns]
                if shown.sum() < MIN_PIXELS:
                    return matrix
                weight = weight * shown
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


def _warped_mask(inside: NDArray[np.bool_], matrix: Float64) -> NDArray[np.bool_]:
    """Sample a mask `[S, S]` at mapped unit coordinates: set where all neighbours are."""
    return np.asarray(warp(inside.astype(np.float32), matrix) > 0.999)


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
