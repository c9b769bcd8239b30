"""Track one face through a video: landmarks, head pose, blinks and cuts frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.encoder.stages import Stage, Task
from sglat.encoder.workfile import Store
from sglat.errors import FaceError
from sglat.media.reader import Clip, VideoInfo, VideoReader
from sglat.networks.face_points import BLINK_SHAPES, NUM_BLENDSHAPES, NUM_POINTS
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceLandmarks

Progress = Callable[[int, int], None]
"""Called with frames done and frames in all by the container; 0 where it does not tell."""

CHUNK: Final = 64  # frames a part of the work file
THUMBNAIL: Final = 24  # pixels a side; small enough that motion inside a shot does not look cut


@dataclass(frozen=True, kw_only=True)
class TrackConfig(Stage["Track"]):
    """How the face is chosen and followed."""

    name = "track"
    networks = ("faces",)

    face: int = 1
    """1 is the largest face of the first frame with a face, 2 the next, and so on."""
    min_score: float = 0.5
    """Landmarks scored below have lost the face."""
    cut_levels: float = 28.0
    """Mean absolute difference between thumbnails of neighbouring frames, grey levels, above which
    the video cuts. Camera and head motion stay below 12 on ordinary clips."""
    blink_openness: float = 0.2
    """Eye aspect ratio below which an eye is closed (Soukupova and Cech 2016)."""
    blink_share: float = 0.6
    """An eye also counts as closed below this share of its own median openness; narrow eyes are
    judged by this alone."""
    blink_shape: float = 0.5
    """Blink blendshape above which an eye is closed."""
    blink_margin: int = 3
    """Frames on either side of a blink that count as part of it."""

    def run(self, task: Task, path: Path) -> Track:
        """See `track`."""
        return track(path, task.bundle.faces, task.open(), self, progress=task.tell)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One face over all frames of a video."""

    width: int
    """Of the upright video in pixels."""
    height: int
    time_base: Fraction
    frame_rate: Fraction
    pts: NDArray[np.int64]
    """`[T]`, in units of `time_base`."""
    points: NDArray[np.float32]
    """`[T, 478, 2]` pixels; repeated where held."""
    pose: NDArray[np.float32]
    """`[T, 3]` yaw, pitch, roll in degrees."""
    openness: NDArray[np.float32]
    """`[T, 2]` eye aspect ratio, the person's own left and right."""
    blendshapes: NDArray[np.float32]
    """`[T, 52]`."""
    score: NDArray[np.float32]
    """`[T]`, 0 where held."""
    held: NDArray[np.bool_]
    """`[T]`: no face was found; values repeat the nearest earlier frame with one, or the first."""
    cut: NDArray[np.bool_]
    """`[T]`: the video cuts before this frame."""
    blink: NDArray[np.bool_]
    """`[T]`: an eye is closed or about to be."""
    most_faces: int
    """Largest number of faces in one frame."""
    damaged_packets: int = 0

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def shown(self) -> NDArray[np.int64]:
        """Which frame each frame shows, `[T]`: itself, or where held the last one with the face,
        or else the first."""
        found = np.flatnonzero(~self.held)
        rows = np.where(self.held, found[0], np.arange(len(self)))
        shown: NDArray[np.int64] = np.maximum.accumulate(rows)
        return shown

    @property
    def breaks(self) -> NDArray[np.bool_]:
        """`[T]` frames before which nothing continues: cuts, and both ends of held frames."""
        breaks = self.cut.copy()
        breaks[1:] |= self.held[1:] != self.held[:-1]
        return breaks

    def messages(self) -> list[str]:
        """Return messages for the user, one line each."""
        lines = []
        if self.most_faces > 1:
            lines.append(f"{self.most_faces} faces seen; following one (choose with --face N)")
        if self.held.any():
            lines.append(f"no face in {int(self.held.sum())} of {len(self)} frames: held")
        if self.cut.any():
            at = ", ".join(str(i) for i in np.flatnonzero(self.cut)[:8])
            lines.append(f"{int(self.cut.sum())} cuts, at frames {at}")
        if self.damaged_packets:
            lines.append(f"{self.damaged_packets} damaged packets skipped")
        return lines


@dataclass
class _Follower:
    """State of the tracker, rebuilt by `_restore` when it resumes."""

    faces: FaceAnalysis
    config: TrackConfig
    last: FaceLandmarks | None = None
    thumbnail: NDArray[np.float32] | None = None
    is_lost: bool = True
    most_faces: int = 0

    def step(self, picture: NDArray[np.uint8]) -> tuple[FaceLandmarks | None, bool]:
        """Return the landmarks in this frame, or None, and whether the video cut before it."""
        thumbnail = _thumbnail(picture)
        is_cut = (
            self.thumbnail is not None
            and float(np.abs(thumbnail - self.thumbnail).mean()) > self.config.cut_levels
        )
        self.thumbnail = thumbnail
        found = None
        if self.last is not None and not self.is_lost and not is_cut:
            found = self._continue(picture)
        if found is None:
            found = self._search(picture, is_cut=is_cut)
        self.is_lost = found is None
        self.last = found or self.last
        return found, is_cut

    def _continue(self, picture: NDArray[np.uint8]) -> FaceLandmarks | None:
        assert self.last is not None
        box = box_of_points(self.last.points, self.last.score)
        found = self.faces.landmarks(picture, box, previous=self.last)
        return found if found.score >= self.config.min_score else None

    def _search(self, picture: NDArray[np.uint8], *, is_cut: bool) -> FaceLandmarks | None:
        boxes = self.faces.detect(picture)
        self.most_faces = max(self.most_faces, len(boxes))
        if not boxes:
            return None
        if self.last is None and not 1 <= self.config.face <= len(boxes):
            raise FaceError(
                "no-such-face", f"face {self.config.face} was asked for, {len(boxes)} found"
            )
        if self.last is None or is_cut:
            order = [boxes[min(self.config.face, len(boxes)) - 1], *boxes]
        else:
            centre = self.last.points.mean(axis=0)
            order = sorted(boxes, key=lambda box: _distance(box, centre))
        for box in order:
            found = self.faces.landmarks(picture, box)
            if found.score >= self.config.min_score:
                return found
        return None


def track(
    path: Path | Clip,
    faces: FaceAnalysis,
    store: Store,
    config: TrackConfig | None = None,
    *,
    progress: Progress | None = None,
) -> Track:
    """Follow one face through a video.

    Frames stream through; only the records are kept. Interrupted work continues behind its last
    stored part.

    Args:
        path: the video.
        faces: detector and landmarker.
        store: where records are kept.
        config: how the face is chosen.
        progress: called after each frame.

    Raises:
        FaceError: there is no face in the whole video.
        MediaError: the video cannot be read.
    """
    config = config or TrackConfig()
    if not store.is_done:
        _follow(path, faces, store, config, progress)
    return _assemble(store, config)


def expected_frames(info: VideoInfo) -> int:
    """Return how many frames a container promises, by count or else by duration; 0 if neither."""
    return info.frame_count or round(info.duration_seconds * info.frame_rate)


def box_of_points(points: NDArray[np.float32], score: float) -> FaceBox:
    """Return the bounding box of landmarks `[N, 2]`."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return FaceBox(
        left=float(left), top=float(top), right=float(right), bottom=float(bottom), score=score
    )


def find_blinks(
    openness: NDArray[np.float32],
    blendshapes: NDArray[np.float32],
    held: NDArray[np.bool_],
    config: TrackConfig,
) -> NDArray[np.bool_]:
    """Return which frames belong to a blink, `[T]`.

    Args:
        openness: `[T, 2]` eye aspect ratios.
        blendshapes: `[T, 52]`.
        held: `[T]` frames without a face; they never blink.
        config: thresholds.
    """
    usual = np.median(openness[~held], axis=0) if (~held).any() else np.ones(2)
    limit = np.minimum(config.blink_openness, config.blink_share * usual)
    closed = (openness < limit).any(axis=1)
    closed |= (blendshapes[:, BLINK_SHAPES] > config.blink_shape).all(axis=1)
    closed &= ~held
    width = 2 * config.blink_margin + 1
    return np.convolve(closed, np.ones(width), mode="same")[: len(closed)] > 0


def _follow(
    path: Path | Clip,
    faces: FaceAnalysis,
    store: Store,
    config: TrackConfig,
    progress: Progress | None,
) -> None:
    follower = _Follower(faces, config)
    done = store.rows
    rows: list[dict[str, Any]] = []
    if done:
        _restore(follower, store)
    with VideoReader(path) as reader:
        expected = expected_frames(reader.info)
        for frame in reader:
            if frame.index < done:
                if frame.index == done - 1:
                    follower.thumbnail = _thumbnail(frame.picture)
                continue
            found, is_cut = follower.step(frame.picture)
            rows.append(_record(frame.pts, found, follower, is_cut))
            if len(rows) == CHUNK:
                store.append(_stack(rows))
                rows = []
            if progress is not None:
                progress(frame.index + 1, max(expected, frame.index + 1) if expected else 0)
        if rows:
            store.append(_stack(rows))
        info = reader.info
        facts = {
            "width": info.width, "height": info.height, "time_base": str(reader.time_base),
            "frame_rate": str(info.frame_rate), "damaged_packets": reader.damaged_packets,
        }  # fmt: skip
    if not (store.read("score") > 0).any():
        raise FaceError(
            "no-face",
            f"expected a face, found none in the {store.rows} frames of {path}; faces narrower "
            "than 4 % of the longer side (40 of 1000 pixels) are not found: crop the video around "
            "the face",
        )
    store.finish(facts=facts)


def _record(
    pts: int, found: FaceLandmarks | None, follower: _Follower, is_cut: bool
) -> dict[str, Any]:
    shown = found or follower.last
    return {
        "pts": np.int64(pts),
        "points": np.zeros((NUM_POINTS, 2), np.float32) if shown is None else shown.points,
        "pose": np.zeros(3, np.float32)
        if shown is None
        else np.array([shown.yaw_degrees, shown.pitch_degrees, shown.roll_degrees], np.float32),
        "openness": np.array((0.3, 0.3) if shown is None else shown.eye_openness, np.float32),
        "blendshapes": np.zeros(NUM_BLENDSHAPES, np.float32)
        if shown is None
        else shown.blendshapes,
        "score": np.float32(0.0 if found is None else max(found.score, 1e-6)),
        "cut": np.bool_(is_cut),
        "most_faces": np.int32(follower.most_faces),
    }


def _stack(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _restore(follower: _Follower, store: Store) -> None:
    last = store.rows - 1
    follower.most_faces = int(store.read("most_faces", last)[0])
    score = store.read("score")
    follower.is_lost = bool(score[last] == 0)
    if not (score > 0).any():
        return
    pose = store.read("pose", last)[0]
    openness = store.read("openness", last)[0]
    follower.last = FaceLandmarks(
        points=store.read("points", last)[0],
        yaw_degrees=float(pose[0]),
        pitch_degrees=float(pose[1]),
        roll_degrees=float(pose[2]),
        eye_openness=(float(openness[0]), float(openness[1])),
        blendshapes=store.read("blendshapes", last)[0],
        score=float(score[np.flatnonzero(score > 0)[-1]]),
    )


def _assemble(store: Store, config: TrackConfig) -> Track:
    facts = store.result()[1]
    records = {
        name: store.read(name)
        for name in ("pts", "points", "pose", "openness", "blendshapes", "score", "cut")
    }
    held = records["score"] == 0
    first = int(np.flatnonzero(~held)[0])
    for name in ("points", "pose", "openness", "blendshapes"):
        records[name][:first] = records[name][first]  # frames before the first face repeat it
    return Track(
        width=facts["width"],
        height=facts["height"],
        time_base=Fraction(facts["time_base"]),
        frame_rate=Fraction(facts["frame_rate"]),
        held=held,
        blink=find_blinks(records["openness"], records["blendshapes"], held, config),
        most_faces=int(store.read("most_faces", len(held) - 1)[0]),
        damaged_packets=facts["damaged_packets"],
        **records,
    )


def _thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a coarse grey picture `[24, 24]` by averaging a sparse grid of pixels."""
    height, width = picture.shape[:2]
    rows = np.linspace(0, height - 1, THUMBNAIL * 4).astype(int)
    columns = np.linspace(0, width - 1, THUMBNAIL * 4).astype(int)
    sparse = picture[rows][:, columns].astype(np.float32).mean(axis=2)
    blocks: NDArray[np.float32] = sparse.reshape(THUMBNAIL, 4, THUMBNAIL, 4).mean(axis=(1, 3))
    return blocks


def _distance(box: FaceBox, centre: NDArray[np.float32]) -> float:
    middle = np.array([box.left + box.right, box.top + box.bottom]) / 2
    return float(np.hypot(*(middle - centre)))
