"""Expression, gaze and pose of a face over time, and how well two sequences agree.

The paper measures action units and gaze with OpenFace 2.0. Blendshapes and iris points stand in for
them here, under names that end in `proxy`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError
from sglat.networks.face_points import (
    BLINK_SHAPES,
    EYE_CORNERS,
    FACE_OVAL,
    GAZE_SHAPES,
    INNER_LIPS,
    IRISES,
    JAW_OPEN_SHAPE,
    LID_MIDDLES,
    NEUTRAL_SHAPE,
    NUM_BLENDSHAPES,
    OUTER_EYE_CORNERS,
    RIGID,
)
from sglat_lab.measure.landmarks import Signals

Float32 = NDArray[np.float32]

QUIET_SHAPE: Final = 0.01  # standard deviation below which a blendshape carries no signal
QUIET_GAZE: Final = 0.005  # of the eye's width
QUIET_POSE_DEGREES: Final = 1.0


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


def mouth_opening(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the gap of the inner lips over the distance of the outer eye corners, `[T]`."""
    upper, lower = (points[:, i].astype(np.float64) for i in INNER_LIPS)
    left, right = (points[:, i].astype(np.float64) for i in OUTER_EYE_CORNERS)
    width = np.linalg.norm(left - right, axis=1)
    return np.asarray(np.linalg.norm(upper - lower, axis=1) / width)


def eye_opening(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the gap of the lids over the width of the eye, mean of both eyes, `[T]`."""
    both = []
    for (upper, lower), (first, second) in zip(LID_MIDDLES, EYE_CORNERS, strict=True):
        gap = np.linalg.norm(points[:, upper].astype(np.float64) - points[:, lower], axis=1)
        width = np.linalg.norm(points[:, first].astype(np.float64) - points[:, second], axis=1)
        both.append(gap / width)
    return np.asarray(np.mean(both, axis=0))


def signal_tracks(signals: Signals) -> dict[str, NDArray[np.float64]]:
    """Return named scalar signals over time, `[T]` each."""
    return {
        "yaw": signals.pose[:, 0].astype(np.float64),
        "pitch": signals.pose[:, 1].astype(np.float64),
        "mouth": mouth_opening(signals.points),
        "jaw_shape": signals.blendshapes[:, JAW_OPEN_SHAPE].astype(np.float64),
        "eyes": eye_opening(signals.points),
        "blink_shape": signals.blendshapes[:, BLINK_SHAPES].mean(1).astype(np.float64),
        "gaze_along": gaze(signals.points)[:, 0],
        "gaze_across": gaze(signals.points)[:, 1],
    }


def span(values: NDArray[np.floating]) -> float:
    """Return how far a signal moves, between its 2nd and 98th percentile."""
    low, high = np.percentile(values[~np.isnan(values)], (2, 98))
    return float(high - low)


def correlations(shown: Signals, wanted: Signals) -> dict[str, dict[str, float | None]]:
    """Return Pearson's r and the source's span for each signal; r is None where nothing moves."""
    both = np.flatnonzero(shown.is_found & wanted.is_found)
    if len(both) < 3:
        return {}
    a, b = signal_tracks(shown.cut(both)), signal_tracks(wanted.cut(both))
    return {
        name: {"r": correlation(a[name][:, None], b[name][:, None], 1e-4), "span": span(b[name])}
        for name in b
    }


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
    """Return the jitter of the rigid landmarks in pixels of a crop `side` pixels wide.

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
