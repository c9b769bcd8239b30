"""Steady, upright, FFHQ-framed crops of the face, and the placement of each in its frame.

Landmarks jitter by about a pixel but do not drift; optical flow to a key frame is steady but
drifts. Each frame is framed by its landmarks (eyes corrected for blinks) and registered to its key
frame over the rigid face; slow movement is taken from the landmarks, fast movement from the flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.paint import FaceTrack
from sglat.decoder.placement import SIZE
from sglat.encoder.crops import crop_picture, landmark_placement
from sglat.encoder.people import PeopleConfig
from sglat.encoder.registration import (
    RegistrationConfig,
    register_video,
    scaled,
    side_within,
)
from sglat.encoder.stages import Progress, Runner, Stage, Task
from sglat.encoder.track import Track, TrackConfig
from sglat.encoder.workfile import Store, WorkFile
from sglat.media.reader import Clip, VideoReader
from sglat.networks.pixels import from_pixels

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AlignConfig(Stage["Alignment"]):
    """How crops are framed and steadied."""

    name = "align"
    version = 3

    resolution: int
    """Side of the crops in pixels, the bundle's."""
    registration: RegistrationConfig = RegistrationConfig()  # noqa: RUF009
    join_seconds: float = 0.35
    """Movements slower than this follow the landmarks, faster ones the flow."""

    @classmethod
    def within(cls, resolution: int, *, is_papers: bool = False) -> AlignConfig:
        """Return the settings for crops of a resolution; with the paper's solver, turns count from
        the frame before (METHOD.md, "Readings")."""
        side, since = side_within(resolution), "frame" if is_papers else "key"
        registration = RegistrationConfig(side=side, turn_since=since)  # type: ignore[arg-type]
        return cls(resolution=resolution, registration=registration)

    def run(self, task: Task, path: Path, track: Track) -> Alignment:
        """See `align`."""
        stores = task.open("register"), task.open("crops")
        return align(path, track, *stores, config=self, progress=task.tell)


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The aligned crops of a video and their placement."""

    placement: NDArray[np.float64]
    """`[T, 4]` centre x, centre y, size in pixels, roll in degrees."""
    key_frame: NDArray[np.int64]
    """`[T]` number of the key frame each frame was registered to; its own if it is one."""
    crops: Crops


class Crops:
    """The aligned crops in the work file, read on demand."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __len__(self) -> int:
        return self._store.rows

    def pictures(self, rows: range | list[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return crops as `[N, R, R, 3]` uint8 RGB."""
        if isinstance(rows, range) and rows.step == 1:
            return self._store.read("crops", rows.start, rows.stop)
        return self._store.read_rows("crops", list(rows))

    def tensor(self, rows: range | list[int] | NDArray[np.int64]) -> Tensor:
        """Return crops as `[N, 3, R, R]` float32 in [-1, 1]."""
        return from_pixels(self.pictures(rows)).contiguous()

    def batches(self, size: int) -> Iterator[tuple[range, Tensor]]:
        """Yield all crops in order, `size` at a time."""
        for start in range(0, len(self), size):
            rows = range(start, min(start + size, len(self)))
            yield rows, self.tensor(rows)


def align(
    path: Path | Clip,
    track: Track,
    registration: Store,
    crops: Store,
    *,
    config: AlignConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Alignment:
    """Frame, register and cut the crops of a tracked video; two passes over the file.

    The store `registration` keeps the rows of the first pass, `crops` those of the second. Progress
    counts frames over both, 0 to 2T.

    Raises:
        MediaError: the video cannot be read again.
    """
    framed = landmark_placement(track.points, blink=track.blink | track.held)[track.shown]
    if not registration.is_done:
        register_video(path, track, framed, registration, config.registration, progress)
    placement = join(
        framed,
        registration.read("placement"),
        registration.read("is_registered"),
        registration.read("key_frame"),
        registration.read("step"),
        cut=track.breaks,
        sigma_frames=config.join_seconds * float(track.frame_rate),
    )[track.shown]
    if not crops.is_done:
        _cut(path, track, placement, crops, config.resolution, progress)
    return Alignment(
        placement=placement,
        key_frame=registration.read("key_frame"),
        crops=Crops(crops),
    )


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

    Steps from frame to frame come from the registration to the common key frame; where it failed
    or the key frame changes, from the registration to the frame before; failing that, from the
    landmarks. The drift of the summed steps from the landmarks is smoothed and added back.

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
    path: Path | Clip,
    track: Track,
    placement: Float64,
    store: Store,
    resolution: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    done = store.rows

    def rows(reader: VideoReader) -> Iterator[list[dict[str, NDArray[np.uint8]]]]:
        for frame in reader:
            if frame.index >= len(track):
                break
            if frame.index < done:
                continue
            yield [{"crops": crop_picture(frame.picture, placement[frame.index], resolution)}]
            if progress is not None:
                progress(len(track) + frame.index + 1, 2 * len(track))

    with VideoReader(path) as reader:
        store.extend(rows(reader))
    store.finish()


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


def place_face(
    source: Clip, bundle: Bundle, *, face: int = 1, progress: Progress | None = None
) -> FaceTrack:
    """Follow a face of a video as the encoder does, with its first stages.

    Args:
        source: video or picture, or a range of it.
        bundle: face networks.
        face: 1 is the largest over the range.
        progress: called with phase, units done and units in all.

    Returns:
        The track; its times are those of the whole video.

    Raises:
        BundleError: no face networks.
        FaceError: no face, or none of this number.
        MediaError: unreadable input.
        UsageError: no frame in the range.
    """
    with VideoReader(source) as reader:
        skipped = float(reader.skipped_seconds)
    with TemporaryDirectory(prefix="sglat-track-") as folder:
        run = Runner(bundle, WorkFile(Path(folder) / "work", source=""), progress)
        video = run.video(source)
        people = run(PeopleConfig(resolution=bundle.resolution), video)
        tracked = run(TrackConfig(face=face), video, people)
        placement = run(AlignConfig.within(bundle.resolution), video, tracked).value.placement
    track = tracked.value
    return FaceTrack(
        seconds=skipped + (track.pts * float(track.time_base)).astype(np.float64),
        placement=placement,
        is_held=track.held,
        is_cut=track.cut,
        size=(track.width, track.height),
    )
