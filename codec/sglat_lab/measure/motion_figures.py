"""Figures of one decoded clip against its source, by networks that no part of the encoder uses.

LPIPS-like distance and identity come from the teachers; landmarks, blendshapes and pose from
MediaPipe. Where MediaPipe is missing the bundle's own landmark network stands in, and the record
says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import Decoder
from sglat.networks.face_points import (
    BLINK_SHAPES,
    EYE_CORNERS,
    INNER_LIPS,
    JAW_OPEN_SHAPE,
    LID_MIDDLES,
    NUM_BLENDSHAPES,
    NUM_POINTS,
    OUTER_EYE_CORNERS,
)
from sglat.networks.faces import FaceBox, FaceLandmarks
from sglat.networks.pixels import to_pixels
from sglat_lab.measure.face_signals import (
    Landmarker,
    Signals,
    correlation,
    face_masks,
    gaze,
    jitter_pixels,
)
from sglat_lab.measure.judges import Judges, to_tensor
from sglat_lab.measure.picture_metrics import make_reference, means, measure_pictures

Pictures = NDArray[np.uint8]

PICTURE_ROWS: Final = 96  # frames, evenly spread, of the picture measures
MOVING_DEGREES: Final = 5.0  # between the 2nd and 98th percentile: the source turns its head
MOVING_MOUTH: Final = 0.06  # likewise, inner lips over the distance of the eyes: it speaks
MOVING_EYES: Final = 0.12  # likewise, aspect ratio: it blinks


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """A landmark network and its name."""

    name: str
    landmarker: Landmarker | None
    bundle: Bundle

    def watch(self, pictures: Pictures) -> Signals:
        """Return the signals of crops `[T, R, R, 3]`."""
        if self.landmarker is not None:
            return self.landmarker.watch(pictures)
        return _watch_embedded(self.bundle, pictures)


def make_watcher(judges: Judges, bundle: Bundle) -> Watcher:
    """Return MediaPipe if it is at hand, else the bundle's own landmarks."""
    if judges.landmarker is None:
        return Watcher(name="the bundle's own landmark network", landmarker=None, bundle=bundle)
    return Watcher(name="MediaPipe", landmarker=Landmarker(judges.landmarker), bundle=bundle)


def _watch_embedded(bundle: Bundle, pictures: Pictures) -> Signals:
    count, side = len(pictures), pictures.shape[1]
    points = np.full((count, NUM_POINTS, 2), np.nan, np.float32)
    shapes = np.full((count, NUM_BLENDSHAPES), np.nan, np.float32)
    pose = np.full((count, 2), np.nan, np.float32)
    share = (0.2, 0.25, 0.8, 0.9)  # where the FFHQ crop has its face
    box = FaceBox(**dict(zip(("left", "top", "right", "bottom"), (side * s for s in share),
                             strict=True)), score=1.0)  # fmt: skip
    for at, picture in enumerate(pictures):
        found: FaceLandmarks = bundle.faces.landmarks(picture, box)
        if found.score < 0.5:
            continue
        points[at], shapes[at] = found.points / side, found.blendshapes
        pose[at] = found.yaw_degrees, found.pitch_degrees
    return Signals(points=points, blendshapes=shapes, pose=pose)


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
    """Return what a face does over time, `[T]` or `[T, C]` each."""
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


def decode_all(path: Path, bundle: Bundle) -> tuple[Pictures, NDArray[np.bool_]]:
    """Return all decoded crops `[T, R, R, 3]` and which frames are held, `[T]`."""
    with path.open("rb") as file:
        frames = list(Decoder(file, bundle=bundle).frames())
    return np.stack([f.picture for f in frames]), np.array([f.is_held for f in frames])


@torch.inference_mode()
def inverted(pictures: Pictures, bundle: Bundle) -> Pictures:
    """Return the inverter's own reconstruction of crops `[N, R, R, 3]`."""
    parts = [bundle.generator(bundle.inverter(part)) for part in to_tensor(pictures).split(8)]
    return to_pixels(torch.cat(parts))


def spread_rows(is_held: NDArray[np.bool_], count: int = PICTURE_ROWS) -> NDArray[np.int64]:
    """Return evenly spread frames with a face."""
    usable = np.flatnonzero(~is_held)
    chosen = np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int)
    return np.asarray(usable[np.unique(chosen)], np.int64)


def face_figures(
    source: Pictures,
    shown: Pictures,
    is_held: NDArray[np.bool_],
    *,
    bundle: Bundle,
    judges: Judges,
    watcher: Watcher,
) -> tuple[dict[str, Any], Signals]:
    """Return the figures of a clip, and the source's signals.

    Args:
        source: aligned source crops, `[T, R, R, 3]`.
        shown: decoded crops, likewise.
        is_held: `[T]` frames without a face in the source.
        bundle: for the inverter's own reconstruction.
        judges: measuring networks.
        watcher: landmarks.
    """
    rows = spread_rows(is_held)
    reference = make_reference(source, rows, 0, judges, watcher.landmarker)
    if reference.masks is None:
        masks = face_masks(watcher.watch(source[rows]).points, source.shape[1])
        reference = replace(reference, masks=masks)
    ours = means(measure_pictures(shown[rows], reference, judges))
    own = means(measure_pictures(inverted(source[rows], bundle), reference, judges))
    a, b = watcher.watch(shown), watcher.watch(source)
    a.pose[is_held] = np.nan  # is_found is read from the pose
    trembling, expected = (jitter_pixels(_masked(s, is_held), source.shape[1]) for s in (a, b))
    figures = {
        "frames_measured": len(rows),
        "ours": ours,
        "inverter": own,
        "signals": correlations(a, b),
        "signals_by": watcher.name,
        "jitter_pixels": trembling,
        "jitter_pixels_source": expected,
        "jitter_ratio": trembling / expected if trembling and expected else None,
        "faces_lost": int((b.is_found & ~a.is_found & ~is_held).sum()),
    }
    return figures, b


def _masked(signals: Signals, is_held: NDArray[np.bool_]) -> NDArray[np.float32]:
    points = signals.points.copy()
    points[is_held] = np.nan
    return points
