"""What a face does over time, as MediaPipe sees it, and how well two sequences agree.

The paper measures action units and gaze with OpenFace 2.0. MediaPipe's blendshapes and iris points
stand in for them here, under names that say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError
from sglat.networks.face_points import (
    EYE_CORNERS,
    FACE_OVAL,
    GAZE_SHAPES,
    IRISES,
    NEUTRAL_SHAPE,
    NUM_BLENDSHAPES,
    NUM_POINTS,
    RIGID,
)

Float32 = NDArray[np.float32]

QUIET_SHAPE: Final = 0.01  # standard deviation below which a blendshape carries no signal
QUIET_GAZE: Final = 0.005  # of the eye's width
QUIET_POSE_DEGREES: Final = 1.0
LARGER: Final = 2  # crops are enlarged before they are looked at


@dataclass(frozen=True, kw_only=True)
class Signals:
    """One sequence of aligned crops as the landmark network sees it."""

    points: Float32
    """`[T, 478, 2]` in unit crop coordinates; NaN where no face was found."""
    blendshapes: Float32
    """`[T, 52]`, 0 to 1."""
    pose: Float32
    """`[T, 2]` yaw and pitch in degrees."""

    @property
    def is_found(self) -> NDArray[np.bool_]:
        """`[T]` frames with a face."""
        return ~np.isnan(self.pose[:, 0])

    def packed(self) -> Float32:
        """Return all in one array, `[T, 1010]`."""
        flat = self.points.reshape(len(self.points), -1)
        return np.concatenate([flat, self.blendshapes, self.pose], axis=1)

    @classmethod
    def unpacked(cls, values: Float32) -> Signals:
        """Return what `packed` was made of."""
        return cls(
            points=np.array(values[:, : 2 * NUM_POINTS]).reshape(-1, NUM_POINTS, 2),
            blendshapes=np.array(values[:, 2 * NUM_POINTS : -2]),
            pose=np.array(values[:, -2:]),
        )

    def cut(self, rows: NDArray[np.int64] | slice) -> Signals:
        """Return some of the frames."""
        return Signals(
            points=self.points[rows], blendshapes=self.blendshapes[rows], pose=self.pose[rows]
        )


class Landmarker:
    """MediaPipe's face landmarker, each frame on its own: nothing is smoothed over time.

    Args:
        file: the task file.
    """

    def __init__(self, file: Path) -> None:
        try:
            import mediapipe as mp
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise MissingExtraError("mediapipe", extra="simulate") from error
        self._mp: Any = mp
        self._landmarker: Any = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(file)),
                running_mode=vision.RunningMode.IMAGE,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
                num_faces=1,
            )
        )

    def close(self) -> None:
        """Release the network; MediaPipe cannot do so by itself while Python ends."""
        self._landmarker.close()

    def watch(self, pictures: NDArray[np.uint8]) -> Signals:
        """Return the signals of crops `[T, H, W, 3]`."""
        count = len(pictures)
        points = np.full((count, NUM_POINTS, 2), np.nan, np.float32)
        shapes = np.full((count, NUM_BLENDSHAPES), np.nan, np.float32)
        pose = np.full((count, 2), np.nan, np.float32)
        for at, picture in enumerate(pictures):
            large = np.ascontiguousarray(picture.repeat(LARGER, 0).repeat(LARGER, 1))
            image = self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=large)
            found = self._landmarker.detect(image)
            if not found.face_landmarks:
                continue
            points[at] = [(p.x, p.y) for p in found.face_landmarks[0]]
            shapes[at] = [shape.score for shape in found.face_blendshapes[0]]
            matrix = np.asarray(found.facial_transformation_matrixes[0], np.float64)[:3, :3]
            pose[at] = yaw_and_pitch(matrix)
        return Signals(points=points, blendshapes=shapes, pose=pose)


def yaw_and_pitch(matrix: NDArray[np.float64]) -> tuple[float, float]:
    """Return yaw and pitch in degrees of a head matrix `[3, 3]` that may carry a scale."""
    rotation = matrix / np.linalg.norm(matrix, axis=0)
    yaw = np.degrees(np.arctan2(rotation[0, 2], rotation[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(rotation[1, 2], -1, 1)))
    return float(yaw), float(pitch)


def gaze(points: Float32) -> NDArray[np.float64]:
    """Return where the irises lie between the eye corners, `[T, 2]`: along and across the eye.

    Fractions of the eye's width, mean of both eyes; a proxy for gaze angles.

    Args:
        points: `[T, 478, 2]`.
    """
    both = []
    for (first, second), iris in zip(EYE_CORNERS, IRISES, strict=True):
        a, b = (points[:, first].astype(np.float64), points[:, second].astype(np.float64))
        along = b - a
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        offset = points[:, iris] - (a + b) / 2
        width = np.square(along).sum(axis=1)
        both.append(
            np.stack([(offset * along).sum(1) / width, (offset * across).sum(1) / width], axis=1)
        )
    return np.asarray(np.mean(both, axis=0))


def correlation(
    shown: NDArray[np.floating], wanted: NDArray[np.floating], quiet: float
) -> float | None:
    """Return the mean Pearson correlation over channels; None where the reference hardly moves.

    A rendered channel that does not move at all counts as 0.

    Args:
        shown: `[T, C]`.
        wanted: `[T, C]`, the reference.
        quiet: channels of the reference with a smaller standard deviation are left out.
    """
    a, b = np.asarray(shown, np.float64), np.asarray(wanted, np.float64)
    is_moving = b.std(axis=0) >= quiet
    if not is_moving.any() or len(a) < 3:
        return None
    a, b = a[:, is_moving] - a[:, is_moving].mean(0), b[:, is_moving] - b[:, is_moving].mean(0)
    size = np.sqrt(np.square(a).sum(0) * np.square(b).sum(0))
    products = (a * b).sum(0)
    return float(np.divide(products, size, out=np.zeros_like(size), where=size > 1e-12).mean())


def jitter_pixels(points: Float32, side: int) -> float | None:
    """Return the trembling of the rigid landmarks in pixels of a crop `side` pixels wide.

    Root mean square of second differences over sqrt(6): for white noise its standard deviation.

    Args:
        points: `[T, 478, 2]` of consecutive frames, unit crop coordinates.
        side: of the crop.
    """
    if len(points) < 3:
        return None
    rigid = points[:, list(RIGID)].astype(np.float64) * side
    second = np.diff(rigid, n=2, axis=0)
    second = second[~np.isnan(second).any(axis=(1, 2))]
    if not len(second):
        return None
    return float(np.sqrt(np.square(second).mean() / 6))


def compare(shown: Signals, wanted: Signals, *, side: int) -> dict[str, float | None]:
    """Return the correlations and the jitter of one sequence against its reference.

    Frames where either has no face are left out of the correlations and counted.

    Raises:
        UsageError: sequences of different length.
    """
    if len(shown.pose) != len(wanted.pose):
        raise UsageError(
            "sequence-length", f"expected {len(wanted.pose)} frames, found {len(shown.pose)}"
        )
    both = np.flatnonzero(shown.is_found & wanted.is_found)
    a, b = shown.cut(both), wanted.cut(both)
    shapes = [i for i in range(NUM_BLENDSHAPES) if i != NEUTRAL_SHAPE and i not in GAZE_SHAPES]
    return {
        "rho_au_proxy": correlation(
            a.blendshapes[:, shapes], b.blendshapes[:, shapes], QUIET_SHAPE
        ),
        "rho_gaze_proxy": correlation(gaze(a.points), gaze(b.points), QUIET_GAZE),
        "rho_pose": correlation(a.pose, b.pose, QUIET_POSE_DEGREES),
        "jitter_pixels": jitter_pixels(shown.points, side),
        "faces_lost": float((wanted.is_found & ~shown.is_found).sum()),
    }


def face_masks(points: Float32, side: int) -> NDArray[np.bool_]:
    """Return the region inside the face oval, `[T, side, side]`; all of it where no face was found.

    Args:
        points: `[T, 478, 2]` of the reference, unit crop coordinates.
        side: of the masks in pixels.
    """
    try:
        from skimage.draw import polygon2mask
    except ImportError as error:
        raise MissingExtraError("scikit-image", extra="bench") from error
    masks = np.ones((len(points), side, side), bool)
    for at, face in enumerate(points):
        if not np.isnan(face).any():
            oval = face[list(FACE_OVAL), ::-1].astype(np.float64) * side - 0.5
            mask = polygon2mask((side, side), oval)
            if mask.any():
                masks[at] = mask
    return masks
