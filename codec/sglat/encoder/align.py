"""Stage 2: steady, upright, FFHQ-framed crops of the face, and where each one came from.

Landmarks say where the face is, but tremble by a pixel; optical flow to a key frame is steady, but
drifts. Each frame is framed by its landmarks (eyes corrected for blinks), registered to its key
frame over the rigid face, and the two are joined: slow movement from the landmarks, fast movement
from the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat.decoder.placement import SIZE
from sglat.encoder.crops import crop_picture
from sglat.encoder.registration import AlignConfig, register_video, scaled
from sglat.encoder.track import CHUNK, Track
from sglat.encoder.workfile import Stage
from sglat.media.reader import VideoReader
from sglat.networks.face_points import LEFT_EYE, MOUTH_CORNERS, NOSE_FOOT, RIGHT_EYE
from sglat.networks.pixels import from_pixels

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where the crops of a video lie, and the crops."""

    placement: NDArray[np.float64]
    """`[T, 4]` centre x, centre y, size in pixels, roll in degrees."""
    key_frame: NDArray[np.int64]
    """`[T]` number of the key frame each frame was registered to; its own if it is one."""
    residual: NDArray[np.float32]
    """`[T]` mean squared RGB error to the key frame after registration; 0 at key frames."""
    is_registered: NDArray[np.bool_]
    """`[T]` the flow was used: it beat no warp and stayed below its limit."""
    crops: Crops


class Crops:
    """The aligned crops in the work file, read as they are needed."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def __len__(self) -> int:
        return self._stage.rows

    def pictures(self, rows: range | list[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return crops as `[N, R, R, 3]` uint8 RGB."""
        if isinstance(rows, range) and rows.step == 1:
            return self._stage.read("crops", rows.start, rows.stop)
        return self._stage.read_rows("crops", list(rows))

    def tensor(self, rows: range | list[int] | NDArray[np.int64]) -> Tensor:
        """Return crops as `[N, 3, R, R]` float32 in [-1, 1]."""
        return from_pixels(self.pictures(rows)).contiguous()

    def batches(self, size: int) -> Iterator[tuple[range, Tensor]]:
        """Yield all crops in order, `size` at a time."""
        for start in range(0, len(self), size):
            rows = range(start, min(start + size, len(self)))
            yield rows, self.tensor(rows)


def align(
    path: Path,
    track: Track,
    registration: Stage,
    crops: Stage,
    *,
    resolution: int,
    config: AlignConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> Alignment:
    """Frame, register and cut the crops of a tracked video; two passes over the file.

    Args:
        path: the video.
        track: from stage 1.
        registration: work-file stage of the first pass.
        crops: work-file stage of the second pass.
        resolution: side of the crops in pixels, the bundle's.
        config: constants.
        progress: called with frames done, 0 to 2T over both passes.

    Raises:
        MediaError: the video cannot be read again.
    """
    config = config or AlignConfig()
    framed = landmark_placement(
        track.points, blink=track.blink | track.held, steady_mouth=config.steady_mouth
    )
    hold(framed, track.held)
    if not registration.is_done:
        register_video(path, track, framed, registration, config, progress)
    placement = join(
        framed,
        registration.read("placement"),
        registration.read("is_registered"),
        registration.read("key_frame"),
        registration.read("step"),
        cut=track.cut,
        sigma_frames=config.join_seconds * float(track.frame_rate),
    )
    if not config.use_flow:
        placement = framed
    if not crops.is_done:
        _cut(path, track, placement, crops, resolution, progress)
    return Alignment(
        placement=placement,
        key_frame=registration.read("key_frame"),
        residual=registration.read("residual"),
        is_registered=registration.read("is_registered"),
        crops=Crops(crops),
    )


def landmark_placement(
    points: NDArray[np.float32], *, blink: NDArray[np.bool_], steady_mouth: bool = True
) -> Float64:
    """Return FFHQ framing by landmarks, with eye centres that ignore blinks.

    The eye centre of the recipe is the mean of six points, two of which go down with the lid. Here
    the corners carry it: centre = middle of the corners + the person's usual offset, measured over
    the frames with open eyes. In the same way the foot of the nose carries the mouth: a smile lifts
    the corners of the mouth, and by the recipe's own rule the whole head would shrink and grow.

    Args:
        points: `[T, 478, 2]` pixels.
        blink: `[T]` frames that do not count for the usual offsets.
        steady_mouth: False takes the corners of the mouth as they are.

    Returns:
        Placement `[T, 4]`.

    Source: ffhq-dataset, download_ffhq.py, recreate_aligned_images.
    """
    points64 = points.astype(np.float64)
    left = _open_eye_centre(points64[:, LEFT_EYE], blink)  # lies right in the picture
    right = _open_eye_centre(points64[:, RIGHT_EYE], blink)
    across = left - right
    middle = (left + right) / 2
    down = points64[:, MOUTH_CORNERS].mean(axis=1) - middle
    if steady_mouth:
        down = _usual(down, points64[:, NOSE_FOOT].mean(axis=1) - middle, blink)
    x_axis = across + np.stack([down[:, 1], -down[:, 0]], axis=1)
    length = np.maximum(2.0 * _length(across), 1.8 * _length(down))
    centre = middle + 0.1 * down
    roll = np.rad2deg(np.unwrap(np.arctan2(x_axis[:, 1], x_axis[:, 0])))
    return np.column_stack([centre, 2.0 * length, roll])


def hold(placement: Float64, held: NDArray[np.bool_]) -> None:
    """Fill frames without a face by straight lines between their neighbours, in place."""
    found = np.flatnonzero(~held)
    for column in range(placement.shape[1]):
        placement[:, column] = np.interp(np.arange(len(held)), found, placement[found, column])


def join(
    framed: Float64,
    registered: Float64,
    is_registered: NDArray[np.bool_],
    key_frame: NDArray[np.int64],
    links: Float64,
    *,
    cut: NDArray[np.bool_],
    sigma_frames: float,
) -> Float64:
    """Join landmark framing (slow) and registration (fast) into one steady track.

    Inside a key frame's run the registration gives the steps; where it failed or the key frame
    changes, registration to the frame before does, and if that failed too, the landmarks. What the
    summed steps drift away from the landmarks is smoothed and added back.

    Args:
        framed: `[T, 4]` by landmarks.
        registered: `[T, 4]` by registration to the key frame.
        is_registered: `[T]` where it holds.
        key_frame: `[T]`.
        links: `[T, 4]` steps from the frame before, size as logarithm; NaN where there is none.
        cut: `[T]`; nothing is smoothed across a cut.
        sigma_frames: width of the Gaussian in frames.
    """
    usable = is_registered.copy()
    usable |= key_frame == np.arange(len(key_frame))  # a key frame is registered to itself
    steps = np.where(np.isnan(links[1:]), np.diff(scaled(framed), axis=0), links[1:])
    same = (key_frame[1:] == key_frame[:-1]) & usable[1:] & usable[:-1]
    steps[same] = np.diff(scaled(registered), axis=0)[same]
    summed = np.concatenate([np.zeros((1, 4)), np.cumsum(steps, axis=0)])
    drift = scaled(framed) - summed
    borders = [0, *np.flatnonzero(cut), len(cut)]
    for start, stop in pairwise(borders):
        drift[start:stop] = _smooth(drift[start:stop], sigma_frames)
    joined = summed + drift
    joined[:, SIZE] = np.exp(joined[:, SIZE])
    return np.asarray(joined)


def _cut(
    path: Path,
    track: Track,
    placement: Float64,
    stage: Stage,
    resolution: int,
    progress: Callable[[int], None] | None,
) -> None:
    done = stage.rows
    rows: list[NDArray[np.uint8]] = []
    with VideoReader(path) as reader:
        for frame in reader:
            if frame.index >= len(track):
                break
            if frame.index < done:
                continue
            rows.append(crop_picture(frame.picture, placement[frame.index], resolution))
            if len(rows) == CHUNK:
                stage.append({"crops": np.stack(rows)})
                rows = []
            if progress is not None:
                progress(len(track) + frame.index + 1)
    if rows:
        stage.append({"crops": np.stack(rows)})
    stage.finish()


def _open_eye_centre(eye: Float64, blink: NDArray[np.bool_]) -> Float64:
    """Return eye centres `[T, 2]` from six points `[T, 6, 2]` in the order of `LEFT_EYE`."""
    corners = (eye[:, 0] + eye[:, 3]) / 2
    centre: Float64 = corners + _usual(eye.mean(axis=1) - corners, eye[:, 3] - eye[:, 0], blink)
    return centre


def _usual(vectors: Float64, along: Float64, ignored: NDArray[np.bool_]) -> Float64:
    """Return vectors `[T, 2]` as they usually lie relative to others, turned and scaled with them.

    The median over the frames that are not ignored decides what is usual.
    """
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    scale = np.square(along).sum(axis=1)
    coordinates = np.column_stack(
        [(vectors * along).sum(axis=1) / scale, (vectors * across).sum(axis=1) / scale]
    )
    usual = np.median(coordinates if ignored.all() else coordinates[~ignored], axis=0)
    return np.asarray(usual[0] * along + usual[1] * across)


def _length(vectors: Float64) -> Float64:
    lengths: Float64 = np.hypot(vectors[:, 0], vectors[:, 1])
    return lengths


def _smooth(values: Float64, sigma: float) -> Float64:
    """Return `[T, C]` smoothed by a Gaussian, mirrored at both ends about the end values."""
    if sigma <= 0 or len(values) < 3:
        return values
    radius = min(int(4 * sigma + 1), len(values) - 1)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * np.square(offsets / sigma))
    kernel /= kernel.sum()
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="reflect", reflect_type="odd")
    columns = [np.convolve(padded[:, i], kernel, mode="valid") for i in range(values.shape[1])]
    return np.stack(columns, axis=1)
