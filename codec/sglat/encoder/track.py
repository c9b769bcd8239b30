"""Track one face through a video: landmarks, head pose, blinks and cuts frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.encoder.follow import FollowConfig, Follower, Identify
from sglat.encoder.guide import Guide
from sglat.encoder.people import People, face_vector, thumbnail
from sglat.encoder.stages import Stage, Task
from sglat.encoder.workfile import CHUNK, Store, stacked
from sglat.errors import FaceError
from sglat.media.reader import Clip, Frame, VideoReader
from sglat.networks.face_points import BLINK_SHAPES, NUM_BLENDSHAPES, NUM_POINTS
from sglat.networks.faces import FaceAnalysis, FaceLandmarks

Progress = Callable[[int, int], None]
"""Called with frames done and frames in all by the container; 0 where it does not tell."""

MOST_NAMED: Final = 8  # stretches of another person that are named
WHOLE: Final = 0.98  # share of landmarks within the frame from which a face is all there
_NOBODY: Final = FaceLandmarks(
    points=np.zeros((NUM_POINTS, 2), np.float32), yaw_degrees=0.0, pitch_degrees=0.0,
    roll_degrees=0.0, eye_openness=(0.3, 0.3), blendshapes=np.zeros(NUM_BLENDSHAPES, np.float32),
    score=0.0,
)  # fmt: skip
"""Stored until the first face is found; `_assemble` writes that one in its place."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig(FollowConfig, Stage["Track"]):
    """How the face is chosen and followed, and what counts as a blink."""

    name = "track"
    version = 4
    networks = ("faces",)

    faded: float = 0.5
    """Share of the face's median contrast below which frames that adjoin frames without a face
    belong to a fade and are held as well."""
    blink_openness: float = 0.2
    """Eye aspect ratio below which an eye is closed (Soukupova and Cech 2016)."""
    blink_share: float = 0.6
    """An eye also counts as closed below this share of its own median openness; narrow eyes are
    judged by this alone."""
    blink_shape: float = 0.5
    """Blink blendshape above which an eye is closed."""
    blink_margin: int = 3
    """Frames on either side of a blink that count as part of it."""

    def run(self, task: Task, path: Path | Clip, people: People) -> Track:
        """See `track`."""
        faces, store = task.bundle.faces, task.open()
        identify = identifier(task.bundle)
        return track(path, faces, store, self, people=people, identify=identify, progress=task.tell)


class Tracked(Protocol):
    """What registration reads of a track, by frame number; see `Track`."""

    @property
    def width(self) -> int:
        """Of the frame in pixels."""

    @property
    def height(self) -> int:
        """Of the frame in pixels."""

    @property
    def breaks(self) -> Any:
        """Whether nothing continues before a frame."""

    @property
    def held(self) -> Any:
        """Whether a frame has no face."""

    @property
    def leaving(self) -> Any:
        """Whether a frame shows the face in part."""

    @property
    def pose(self) -> Any:
        """Yaw, pitch, roll in degrees."""

    @property
    def points(self) -> Any:
        """Landmarks `[478, 2]` in pixels."""


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
    """`[T]`, 0 where no face was found."""
    held: NDArray[np.bool_]
    """`[T]`: the face was not found or is fading; values repeat the nearest earlier frame with
    it, or the first."""
    other: NDArray[np.bool_]
    """`[T]`: held, and another person is there."""
    inside: NDArray[np.float32]
    """`[T]` share of the landmarks within the frame, 1 where no face was found."""
    cut: NDArray[np.bool_]
    """`[T]`: the video cuts before this frame."""
    blink: NDArray[np.bool_]
    """`[T]`: an eye is closed or about to be."""
    most_faces: int
    """Number of people, or else the largest number of faces in one frame."""
    face: int = 1
    """Number of the face followed."""
    damaged_packets: int = 0

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def shown(self) -> NDArray[np.int64]:
        """Which frame each frame shows, `[T]`: itself, or where held the last one with the face,
        or else the first."""
        return shown_frames(self.held)

    @property
    def leaving(self) -> NDArray[np.bool_]:
        """`[T]` frames that show the face in part."""
        return self.inside < WHOLE

    def _clock(self, frame: int) -> str:
        """Return the time of a frame as m:ss."""
        seconds = int((self.pts[frame] - self.pts[0]) * self.time_base)
        return f"{seconds // 60}:{seconds % 60:02d}"

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
            lines.append(
                f"{self.most_faces} faces seen; following face {self.face} by size "
                "(--list-faces shows them, --face N or --like PICTURE chooses)"
            )
        for first, last in _runs(self.other)[:MOST_NAMED]:
            start, end = (self._clock(i) for i in (first, last))
            lines.append(
                f"another person from {start} (frame {first}) to {end}: "
                f"only face {self.face} is stored"
            )
        alone = self.held & ~self.other & ~self.leaving
        for what, frames in (
            ("no face", alone & (self.score == 0)), ("face fades", alone & (self.score > 0))
        ):  # fmt: skip
            if frames.any():
                lines.append(f"{what} in {int(frames.sum())} of {len(self)} frames: held")
        if self.leaving.any():
            lost = int((self.leaving & self.held).sum())
            what = f", {lost} of them held" if lost else ""
            lines.append(f"face leaves the frame in {int(self.leaving.sum())} frames{what}")
        if self.cut.any():
            at = ", ".join(str(i) for i in np.flatnonzero(self.cut)[:8])
            lines.append(f"{int(self.cut.sum())} cuts, at frames {at}")
        if self.damaged_packets:
            lines.append(f"{self.damaged_packets} damaged packets skipped")
        return lines


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last frame of each run of set flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(stop) - 1) for first, stop in edges.reshape(-1, 2)]


def track(
    path: Path | Clip,
    faces: FaceAnalysis,
    store: Store,
    config: TrackConfig | None = None,
    *,
    people: People | None = None,
    identify: Identify | None = None,
    progress: Progress | None = None,
) -> Track:
    """Follow one face through a video.

    Frames stream through; only the records are kept. Interrupted work continues behind its last
    stored part. Without `people`, everybody in the video, the face is chosen in the first frame
    with one. `identify` tells it from others that come near.

    Raises:
        FaceError: there is no face in the whole video, or none of this number.
        MediaError: the video cannot be read.
    """
    config = config or TrackConfig()
    guide = None
    if people is not None and people.faces:
        if not 1 <= config.face <= len(people.faces):
            raise FaceError(
                "no-such-face",
                f"face {config.face} was asked for, {len(people.faces)} found; see --list-faces",
            )
        guide = Guide(people, config.face) if len(people.faces) > 1 else None
    if not store.is_done:
        follower = Follower(faces, config, guide=guide, identify=identify)
        follow_all(path, [(follower, store)], progress)
    if not store.is_done:
        raise FaceError(
            "no-face",
            f"expected a face, found none in the {store.rows} frames of {path}; faces narrower "
            "than 4 % of the longer side (40 of 1000 pixels) are not found: crop the video around "
            "the face",
        )
    found = _assemble(store, config)
    if guide is None or people is None:
        return found
    return replace(found, most_faces=len(people.faces))


def identifier(bundle: Bundle) -> Identify:
    """Return what turns a picture and the landmarks of a face into its identity vector."""
    faces, side, device = bundle.faces, bundle.resolution, bundle.device
    return lambda picture, points: face_vector(faces, picture, points, side, device)


def shown_frames(held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return which frame each frame shows, `[T]`, as in `Track`."""
    rows = np.where(held, np.flatnonzero(~held)[0], np.arange(len(held)))
    shown: NDArray[np.int64] = np.maximum.accumulate(rows)
    return shown


def find_fades(
    contrast: NDArray[np.float32], held: NDArray[np.bool_], least: float
) -> NDArray[np.bool_]:
    """Return which frames fade to or from frames without a face, `held` `[T]`: those next to
    them whose contrast `[T]` is below the `least` share of its median."""
    faded = np.zeros_like(held)
    if not held.any() or held.all():
        return faded
    dim = ~held & (contrast < least * np.median(contrast[~held]))
    for first, last in _runs(held | dim):
        faded[first : last + 1] = held[first : last + 1].any()
    return faded & dim


def find_blinks(
    openness: NDArray[np.float32],
    blendshapes: NDArray[np.float32],
    held: NDArray[np.bool_],
    config: TrackConfig,
) -> NDArray[np.bool_]:
    """Return which frames belong to a blink, `[T]`, by eye aspect ratios `[T, 2]` and blendshapes
    `[T, 52]`; frames without a face, `held` `[T]`, never blink."""
    usual = np.median(openness[~held], axis=0) if (~held).any() else np.ones(2)
    limit = np.minimum(config.blink_openness, config.blink_share * usual)
    closed = (openness < limit).any(axis=1)
    closed |= (blendshapes[:, BLINK_SHAPES] > config.blink_shape).all(axis=1)
    closed &= ~held
    width = 2 * config.blink_margin + 1
    return np.convolve(closed, np.ones(width), mode="same")[: len(closed)] > 0


def follow_all(
    path: Path | Clip, pairs: Sequence[tuple[Follower, Store]], progress: Progress | None = None
) -> None:
    """Follow several faces in one pass over a video; each store that holds a face at the end is
    finished, and unfinished ones continue behind their last part."""
    done = [store.rows for _, store in pairs]
    waiting: list[list[dict[str, Any]]] = [[] for _ in pairs]
    for follower, store in pairs:
        if store.rows:
            _restore(follower, store)
    with VideoReader(path) as reader:
        expected = reader.info.expected_frames
        for frame in reader:
            for (follower, store), begun, rows in zip(pairs, done, waiting, strict=True):
                if frame.index < begun:
                    if frame.index == begun - 1:
                        follower.thumbnail = thumbnail(frame.picture)
                    continue
                rows.append(_row(frame, follower))
                if len(rows) == CHUNK:
                    store.append(stacked(rows))
                    rows.clear()
            if progress is not None and frame.index >= min(done):
                progress(frame.index + 1, max(expected, frame.index + 1) if expected else 0)
        info = reader.info
        facts = {
            "width": info.width, "height": info.height, "time_base": str(reader.time_base),
            "frame_rate": str(info.frame_rate), "damaged_packets": reader.damaged_packets,
        }  # fmt: skip
    for (_, store), rows in zip(pairs, waiting, strict=True):
        if rows:
            store.append(stacked(rows))
        if (store.read("score") > 0).any():
            store.finish(facts=facts)


def _row(frame: Frame, follower: Follower) -> dict[str, Any]:
    found, is_cut = follower.step(frame.index, frame.picture)
    guide = follower.guide
    is_other = found is None and guide is not None and guide.is_other(frame.index)
    return {**_record(frame.pts, found, follower, is_cut), "other": np.bool_(is_other)}


def _record(
    pts: int, found: FaceLandmarks | None, follower: Follower, is_cut: bool
) -> dict[str, Any]:
    shown = found or follower.last or _NOBODY
    pose = (shown.yaw_degrees, shown.pitch_degrees, shown.roll_degrees)
    return {
        "pts": np.int64(pts),
        "points": shown.points,
        "pose": np.array(pose, np.float32),
        "openness": np.array(shown.eye_openness, np.float32),
        "blendshapes": shown.blendshapes,
        "score": np.float32(0.0 if found is None else max(found.score, 1e-6)),
        "cut": np.bool_(is_cut),
        "inside": np.float32(follower.inside),
        "contrast": np.float32(follower.contrast),
        "most_faces": np.int32(follower.most_faces),
    }


def _restore(follower: Follower, store: Store) -> None:
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
    names = ("pts", "points", "pose", "openness", "blendshapes", "score", "cut", "other", "inside")
    records = {name: store.read(name) for name in names}
    held = records["score"] == 0
    held |= find_fades(store.read("contrast"), held, config.faded)
    shown = shown_frames(held)
    for name in ("points", "pose", "openness", "blendshapes"):
        records[name] = records[name][shown]
    return Track(
        width=facts["width"],
        height=facts["height"],
        time_base=Fraction(facts["time_base"]),
        frame_rate=Fraction(facts["frame_rate"]),
        held=held,
        blink=find_blinks(records["openness"], records["blendshapes"], held, config),
        most_faces=int(store.read("most_faces", len(held) - 1)[0]),
        face=config.face,
        damaged_packets=facts["damaged_packets"],
        **records,
    )
