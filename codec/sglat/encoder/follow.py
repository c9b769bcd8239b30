"""Following one face from frame to frame: where it goes on, jumps, leaves or is found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.encoder.guide import Guide
from sglat.encoder.people import Boxes, overlap_of, thumbnail
from sglat.errors import FaceError
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceLandmarks

OVERLAP: Final = 0.2  # of two boxes of one face, intersection over union

Identify = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""A picture `[H, W, 3]` and the landmarks of a face in it `[478, 2]` to its identity vector
`[D]`."""


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """How the face is chosen and followed."""

    face: int = 1
    """1 is the largest face over the clip, 2 the next, and so on (see `People`)."""
    min_score: float = 0.5
    """Landmarks scored below have lost the face."""
    cut_levels: float = 28.0
    """Mean absolute difference between thumbnails of neighbouring frames, grey levels, above which
    the video cuts. Camera and head motion stay below 12 on ordinary clips."""
    jump: float = 0.5
    """Movement of the landmarks' centre from frame to frame, in widths of the face, from which the
    video cuts; a head turns or nods by less than 0.1."""
    zoom: float = 1.4
    """Change of the face's size, either way, from which the video cuts."""
    least_inside: float = 0.6
    """Share of the landmarks within the frame below which the face has left it."""


@dataclass
class Follower:
    """State of the tracker, rebuilt by `track` when it resumes."""

    faces: FaceAnalysis
    config: FollowConfig
    last: FaceLandmarks | None = None
    thumbnail: NDArray[np.float32] | None = None
    is_lost: bool = True
    most_faces: int = 0
    guide: Guide | None = None
    """Where there are several people."""
    identify: Identify | None = None
    """Tells the face from others that come near; None: by its place alone."""
    inside: float = 1.0
    """Share of the face within the last frame."""
    contrast: float = 0.0
    """Of the last frame within the face, in grey levels, 0 without one."""

    def step(self, index: int, picture: NDArray[np.uint8]) -> tuple[FaceLandmarks | None, bool]:
        """Return the landmarks in this frame, or None, and whether the video cut before it."""
        small = thumbnail(picture)
        is_cut = (
            self.thumbnail is not None
            and float(np.abs(small - self.thumbnail).mean()) > self.config.cut_levels
        )
        self.thumbnail = small
        is_cut |= self.guide is not None and self.guide.is_turn(index)
        found = None
        if self.last is not None and not self.is_lost and not is_cut:
            found = self._continue(picture)
            if found is not None and self._jumps(found):
                found, is_cut = None, True
            if found is not None and not self._is_guided(index, found):
                found = None
            if found is not None and self._is_others(index, picture, found):
                found = None
        if found is None and self.guide is not None:
            found = self._search_guided(index, picture, self.guide)
        elif found is None:
            found = self._search(picture, is_cut=is_cut)
        if found is not None and not self.is_lost and self._jumps(found):
            is_cut = True
        self.inside = 1.0 if found is None else inside_share(found.points, picture.shape)
        if self.inside < self.config.least_inside:
            found = None
        self.contrast = 0.0 if found is None else _contrast(found.points, picture)
        self.is_lost = found is None
        self.last = found or self.last
        return found, is_cut

    def _continue(self, picture: NDArray[np.uint8]) -> FaceLandmarks | None:
        assert self.last is not None
        box = box_of_points(self.last.points, self.last.score)
        found = self.faces.landmarks(picture, box, previous=self.last)
        return found if found.score >= self.config.min_score else None

    def _jumps(self, found: FaceLandmarks) -> bool:
        """Whether the face is elsewhere or of another size than in the frame before."""
        if self.last is None:
            return False
        before, after = self.last.points, found.points
        width = max(float(np.ptp(before[:, 0])), 1e-6)
        moved = float(np.linalg.norm(after.mean(axis=0) - before.mean(axis=0))) / width
        scale = max(float(np.ptp(after, axis=0).mean() / np.ptp(before, axis=0).mean()), 1e-6)
        return moved > self.config.jump or max(scale, 1 / scale) > self.config.zoom

    def _is_guided(self, index: int, found: FaceLandmarks) -> bool:
        """Whether the face is where the chosen one is, as far as is known."""
        if self.guide is None or not self.guide.is_sampled(index):
            return True
        place = _sides(box_of_points(found.points, found.score))
        return any(overlap_of(place, box) > OVERLAP for box in self.guide.near(index))

    def _search_guided(
        self, index: int, picture: NDArray[np.uint8], guide: Guide
    ) -> FaceLandmarks | None:
        known = guide.near(index)
        if not known:
            return None
        boxes = self.faces.detect(picture)
        fits = [max(overlap_of(_sides(box), place) for place in known) for box in boxes]
        order = np.argsort(fits)[::-1].tolist()
        likely = [boxes[at] for at in order if fits[at] > OVERLAP]
        return self._first_face(picture, likely, index=index)

    def _is_others(self, index: int, picture: NDArray[np.uint8], found: FaceLandmarks) -> bool:
        """Whether the face is that of another person who is there."""
        if self.guide is None or self.identify is None or not self.guide.is_crowded(index):
            return False
        return self.guide.is_others(self.identify(picture, found.points))

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
        return self._first_face(picture, order)

    def _first_face(
        self, picture: NDArray[np.uint8], boxes: list[FaceBox], *, index: int | None = None
    ) -> FaceLandmarks | None:
        """Return the landmarks in the first box that holds a face; with the number of the frame,
        one that is not another person's."""
        for box in boxes:
            found = self.faces.landmarks(picture, box)
            if found.score < self.config.min_score:
                continue
            if index is None or not self._is_others(index, picture, found):
                return found
        return None


def box_of_points(points: NDArray[np.float32], score: float) -> FaceBox:
    """Return the bounding box of landmarks `[N, 2]`."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return FaceBox(
        left=float(left), top=float(top), right=float(right), bottom=float(bottom), score=score
    )


def inside_share(points: NDArray[np.floating], shape: tuple[int, ...]) -> float:
    """Return the share of landmarks `[N, 2]` within a picture of shape `[H, W, ...]`."""
    inside = (points >= 0) & (points < np.array([shape[1], shape[0]]))
    return float(inside.all(axis=1).mean())


def _contrast(points: NDArray[np.floating], picture: NDArray[np.uint8]) -> float:
    """Return the standard deviation of grey in the bounding box of landmarks `[N, 2]`."""
    left, top = np.maximum(points.min(axis=0), 0).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0)).astype(int).tolist()
    within = picture[top : bottom + 1, left : right + 1]
    return float(within.mean(axis=2).std()) if within.size else 0.0


def _sides(box: FaceBox) -> Boxes:
    return np.array([box.left, box.top, box.right, box.bottom], np.float32)


def _distance(box: FaceBox, centre: NDArray[np.float32]) -> float:
    middle = np.array([box.left + box.right, box.top + box.bottom]) / 2
    return float(np.hypot(*(middle - centre)))
