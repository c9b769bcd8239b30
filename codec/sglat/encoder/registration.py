"""Registration of tracked frames to key frames, and when a new key frame begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.decoder.placement import SIZE, crop_to_frame, frame_to_crop, placement_from_matrix
from sglat.decoder.placement import transform_points as transform
from sglat.encoder.crops import crop_picture, rigid_face_mask
from sglat.encoder.flow import FlowConfig, KeyFrame, warp
from sglat.encoder.track import CHUNK, Track
from sglat.encoder.workfile import Stage
from sglat.media.reader import VideoReader

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How crops are framed and steadied."""

    residual_facing: float = 45.0
    """Mean squared RGB error over the rigid face above which a new key frame begins."""
    residual_turning: float = 30.0
    """The same once yaw or pitch differ from the key frame's by `turn_degrees` or more."""
    turn_degrees: float = 2.0
    flow_side: int = 128
    """Side in pixels of the crops that are registered."""
    join_seconds: float = 0.35
    """Movements slower than this follow the landmarks, faster ones the flow."""
    steady_mouth: bool = True
    """Frame by the person's usual mouth, so that a smile does not zoom; off: the recipe's own."""
    use_flow: bool = True
    """Off: landmarks alone, smoothed over `join_seconds` by nothing."""


def register_video(
    path: Path,
    track: Track,
    framed: Float64,
    stage: Stage,
    config: AlignConfig,
    progress: Callable[[int], None] | None,
) -> None:
    register = _Registration(track, framed, config)
    done = stage.rows
    if done:
        register.key_index = int(stage.read("key_frame", done - 1)[0])
    rows: list[_Row] = []
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.index >= len(track):
                break
            if frame.index < done:
                register.replay(frame.index, frame.picture, last=done - 1)
                continue
            rows.append(register.step(frame.index, frame.picture))
            if len(rows) == CHUNK:
                _commit(stage, rows)
                rows = []
            if progress is not None:
                progress(frame.index + 1)
    if rows:
        _commit(stage, rows)
    stage.finish()


def _commit(stage: Stage, rows: list[_Row]) -> None:
    stage.append(
        {
            "placement": np.stack([row.placement for row in rows]),
            "key_frame": np.array([row.key_frame for row in rows], dtype=np.int64),
            "residual": np.array([row.residual for row in rows], dtype=np.float32),
            "is_registered": np.array([row.is_registered for row in rows], dtype=np.bool_),
            "step": np.stack([row.step for row in rows]),
        }
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    """What registration says of one frame; fields as in `join`."""

    placement: Float64
    key_frame: int
    residual: float = 0.0
    is_registered: bool = False
    step: Float64


NO_STEP: Final = np.full(4, np.nan)


class _Registration:
    """Registers frame after frame to the current key frame."""

    def __init__(self, track: Track, framed: Float64, config: AlignConfig) -> None:
        self.track = track
        self.framed = framed
        self.config = config
        self.key_index = -1
        self._key: KeyFrame | None = None
        self._previous: tuple[int, NDArray[np.float32]] | None = None

    def step(self, index: int, picture: NDArray[np.uint8]) -> _Row:
        """Return what registration says of a frame."""
        framed = self.framed[index]
        if self.track.held[index]:
            self._previous = None
            return _Row(placement=framed, key_frame=self.key_index, step=NO_STEP)
        if self.track.cut[index]:
            self._key = self._previous = None
        crop = self._crop(index, picture)
        row = self._register(index, crop)
        self._previous = (index, crop)
        return row

    def replay(self, index: int, picture: NDArray[np.uint8], *, last: int) -> None:
        """Rebuild the state of a resumed run from a frame that is already done."""
        if index == self.key_index:
            self._make_key(index, self._crop(index, picture))
        if index == last and not self.track.held[index]:
            self._previous = (index, self._crop(index, picture))

    def _register(self, index: int, crop: NDArray[np.float32]) -> _Row:
        framed, residual = self.framed[index], 0.0
        if self._key is not None and self.config.use_flow:
            key_to_crop = self._key.register(crop)
            residual = self._key.residual(warp(crop, key_to_crop))
            if residual <= self._limit(index):
                kept = self._key.residual(warp(crop, _similarity(key_to_crop)))
                wins = kept < self._key.residual(crop)
                return _Row(
                    placement=_moved(framed, key_to_crop) if wins else framed,
                    key_frame=self.key_index,
                    residual=residual,
                    is_registered=wins,
                    step=NO_STEP if wins else self._link(index, crop),
                )
        step = self._link(index, crop)
        self._make_key(index, crop)
        return _Row(placement=framed, key_frame=index, residual=residual, step=step)

    def _link(self, index: int, crop: NDArray[np.float32]) -> Float64:
        """Return the step from the frame before by registration to it, or NaN."""
        if self._previous is None or not self.config.use_flow:
            return NO_STEP
        before, crop_before = self._previous
        key = KeyFrame(crop_before, self._mask(before), FlowConfig())
        before_to_crop = key.register(crop)
        moved = key.residual(warp(crop, _similarity(before_to_crop)))
        if moved >= key.residual(crop) or moved > self.config.residual_facing:
            return NO_STEP
        placement = _moved(self.framed[index], before_to_crop)
        step: Float64 = (scaled(placement[None]) - scaled(self.framed[before][None]))[0]
        return step

    def _make_key(self, index: int, crop: NDArray[np.float32]) -> None:
        """Make a frame, framed by its landmarks, the key frame of those that follow."""
        self._key = KeyFrame(crop, self._mask(index), FlowConfig())
        self.key_index = index

    def _mask(self, index: int) -> NDArray[np.bool_]:
        inverse = frame_to_crop(self.framed[index])
        points = transform(inverse, self.track.points[index].astype(np.float64))
        return rigid_face_mask(points, self.config.flow_side)

    def _crop(self, index: int, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        return crop_picture(picture, self.framed[index], self.config.flow_side).astype(np.float32)

    def _limit(self, index: int) -> float:
        turned = np.abs(self.track.pose[index, :2] - self.track.pose[self.key_index, :2])
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
