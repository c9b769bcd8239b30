"""Drawn faces and eyes that find them: a face analysis without networks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sglat.networks.face_points import (
    FACE_OVAL,
    LEFT_EYE,
    LEFT_EYE_AND_BROW,
    LIPS_AND_CHIN,
    MOUTH_CORNERS,
    NOSE_FOOT,
    NUM_BLENDSHAPES,
    NUM_POINTS,
    RIGHT_EYE,
    RIGHT_EYE_AND_BROW,
)
from sglat.networks.faces import FaceBox, FaceLandmarks

SKIN = (220, 150, 110)


def draw_face(
    picture: NDArray[np.uint8], x: float, y: float, size: float, *, shut: bool = False
) -> NDArray[np.uint8]:
    """Paint a face of `size` pixels about (x, y): a textured oval with eyes and a mouth."""
    rows, columns = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    u, v = (columns + 0.5 - x) / size, (rows + 0.5 - y) / size
    painted = picture.copy()
    texture = 14 * np.sin(40 * u) * np.sin(34 * v)
    oval = (u / 0.36) ** 2 + (v / 0.48) ** 2 < 1
    painted[oval] = np.clip(np.array(SKIN) + texture[oval][:, None], 0, 255)
    lid = 0.008 if shut else 0.035
    for side in (-0.15, 0.15):
        painted[((u - side) / 0.07) ** 2 + ((v + 0.1) / lid) ** 2 < 1] = (30, 30, 40)
    painted[(u / 0.11) ** 2 + ((v - 0.22) / 0.04) ** 2 < 1] = (160, 40, 40)
    return painted


def face_points(x: float, y: float, size: float, *, shut: bool = False) -> NDArray[np.float32]:
    """Return 478 landmarks `[478, 2]` of a face drawn by `draw_face`."""
    random = np.random.default_rng(0)
    points = random.uniform(-0.2, 0.2, (NUM_POINTS, 2))
    angle = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL)] = np.stack([0.36 * np.sin(angle), -0.48 * np.cos(angle)], axis=1)
    for contour, side in ((LEFT_EYE_AND_BROW, 0.15), (RIGHT_EYE_AND_BROW, -0.15)):
        spread = random.uniform(-1, 1, (len(contour), 2)) * (0.08, 0.06)
        points[list(contour)] = spread + np.array([side, -0.13])
    lips = random.uniform(-0.1, 0.1, (len(LIPS_AND_CHIN), 2))
    points[list(LIPS_AND_CHIN)] = lips + np.array([0, 0.3])
    lid = 0.005 if shut else 0.03
    for eye, side in ((LEFT_EYE, 0.15), (RIGHT_EYE, -0.15)):
        first, second = (side - 0.07, -0.1), (side + 0.07, -0.1)
        upper = [(side - 0.03, -0.1 - 2 * lid), (side + 0.03, -0.1 - 2 * lid)]
        lower = [(side + 0.03, -0.1 + lid), (side - 0.03, -0.1 + lid)]
        points[list(eye)] = [first, *upper, second, *lower]
    points[list(NOSE_FOOT)] = [(0.0, 0.1), (-0.05, 0.1), (0.05, 0.1)]
    points[list(MOUTH_CORNERS)] = [(-0.11, 0.22), (0.11, 0.22)]
    return (points * size + np.array([x, y])).astype(np.float32)


class DrawnFaces:
    """Finds drawn faces by their colour.

    Args:
        jitter: standard deviation of the landmarks' error in pixels.
    """

    def __init__(self, *, jitter: float = 0.0) -> None:
        self.jitter = jitter
        self.detections = 0
        self._random = np.random.default_rng(1)

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        """Return all drawn faces, largest first."""
        self.detections += 1
        boxes = []
        labels, _ = ndimage.label(_skin(picture))
        for rows, columns in ndimage.find_objects(labels):
            height, width = rows.stop - rows.start, columns.stop - columns.start
            if height >= 12 and width >= 8:
                boxes.append(
                    FaceBox(
                        left=columns.start,
                        top=rows.start,
                        right=columns.stop,
                        bottom=rows.stop,
                        score=1.0,
                    )
                )
        return sorted(boxes, key=lambda box: (box.left - box.right) * (box.bottom - box.top))

    def landmarks(
        self,
        picture: NDArray[np.uint8],
        box: FaceBox,
        *,
        previous: FaceLandmarks | None = None,
    ) -> FaceLandmarks:
        """Return the landmarks of the face at the box, or a low score."""
        near = self._near(picture, box)
        if near is None:
            return _landmarks(np.zeros((NUM_POINTS, 2), np.float32), openness=0.3, score=0.0)
        size = (near.bottom - near.top) / 0.96
        x, y = (near.left + near.right) / 2, (near.top + near.bottom) / 2
        eyes = picture[
            int(y - 0.16 * size) : int(y - 0.04 * size),
            int(x - 0.2 * size) : int(x + 0.2 * size),
        ]
        shut = (eyes.max(axis=-1) < 60).mean() < 0.12
        points = face_points(x, y, size, shut=shut)
        points = points + self._random.normal(0, self.jitter, points.shape).astype(np.float32)
        return _landmarks(points, openness=0.05 if shut else 0.3, score=1.0)

    def _near(self, picture: NDArray[np.uint8], box: FaceBox) -> FaceBox | None:
        middle = np.array([box.left + box.right, box.top + box.bottom]) / 2
        found = [
            (np.hypot(*(middle - (b.left / 2 + b.right / 2, b.top / 2 + b.bottom / 2))), b)
            for b in DrawnFaces().detect(picture)
        ]
        near = [b for distance, b in sorted(found, key=lambda item: item[0]) if distance < 20]
        return near[0] if near else None


def _skin(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    difference = np.abs(picture.astype(int) - SKIN)
    return ndimage.binary_closing(difference.max(axis=-1) < 45, iterations=2)


def _landmarks(points: NDArray[np.float32], *, openness: float, score: float) -> FaceLandmarks:
    return FaceLandmarks(
        points=points,
        yaw_degrees=0.0,
        pitch_degrees=0.0,
        roll_degrees=0.0,
        eye_openness=(openness, openness),
        blendshapes=np.zeros(NUM_BLENDSHAPES, np.float32),
        score=score,
    )
