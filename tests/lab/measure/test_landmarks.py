"""Landmarks of crops by the bundle's own network, and what is kept of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglat.errors import UsageError
from sglat.networks.faces import FaceBox, FaceLandmarks
from sglat_lab.measure import landmarks
from tests.support.video import moving_square, write_video


class Faces:
    """Stands for a bundle's face analysis: no face in dark pictures."""

    boxes: list[FaceBox]

    def __init__(self) -> None:
        self.boxes = []

    def landmarks(self, picture: np.ndarray, box: FaceBox) -> FaceLandmarks:
        self.boxes.append(box)
        return FaceLandmarks(
            points=np.full((478, 2), picture.shape[1] / 4, np.float32), yaw_degrees=5.0,
            pitch_degrees=-3.0, roll_degrees=1.0, eye_openness=(0.3, 0.3),
            blendshapes=np.full(52, 0.5, np.float32), score=float(picture.max() > 0),
        )  # fmt: skip


def test_the_bundle_s_network_reads_the_face_of_an_aligned_crop() -> None:
    faces: Any = Faces()
    landmarker = landmarks.EmbeddedLandmarker(faces)
    crops = np.stack([np.full((64, 64, 3), 9, np.uint8), np.zeros((64, 64, 3), np.uint8)])
    seen = landmarker.signals(crops)
    assert landmarker.name == "the bundle's own landmark network"
    assert seen.is_found.tolist() == [True, False]
    assert seen.points[0] == pytest.approx(np.full((478, 2), 0.25))
    assert seen.pose[0].tolist() == [5, -3]
    assert np.isnan(seen.points[1]).all()
    assert (faces.boxes[0].left, faces.boxes[0].bottom) == pytest.approx((12.8, 60.8))


def test_signals_survive_packing() -> None:
    random = np.random.default_rng(0)
    made = landmarks.Signals(
        points=random.random((4, 478, 2)).astype(np.float32),
        blendshapes=random.random((4, 52)).astype(np.float32),
        pose=random.random((4, 2)).astype(np.float32),
    )
    back = landmarks.Signals.unpacked(made.packed())
    for name in ("points", "blendshapes", "pose"):
        assert (getattr(back, name) == getattr(made, name)).all()


class Film:
    """Stands for MediaPipe in video mode: finds a face in even frames."""

    moments: list[int] = []  # noqa: RUF012

    def __init__(self, file: Path, *, is_video: bool) -> None:
        self.moments.clear()

    def detect_next(self, picture: np.ndarray, milliseconds: int) -> landmarks.Detection | None:
        self.moments.append(milliseconds)
        if len(self.moments) % 2 == 0:
            return None
        points = np.full((478, 3), 0.5, np.float32)
        angles = np.array([float(len(self.moments)), 0.0, 0.0])
        return landmarks.Detection(
            points=points, blendshapes=np.zeros(52, np.float32), angles=angles, names=("a",) * 52
        )

    def close(self) -> None:
        pass


def test_a_video_is_tracked_once_and_lost_frames_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "MediaPipeLandmarker", Film)
    video = write_video(tmp_path / "v.mp4", [moving_square(i) for i in range(6)])
    found = landmarks.tracked_video(video, tmp_path / "task", tmp_path / "kept")
    height, width = moving_square(0).shape[:2]
    assert Film.moments == [0, 40, 80, 120, 160, 200]
    assert found.is_found.tolist() == [True, False] * 3
    assert found.angles[:, 0].tolist() == [1, 1, 3, 3, 5, 5]
    assert found.points[0, 0].tolist() == [width / 2, height / 2, width / 2]
    monkeypatch.setattr(landmarks, "MediaPipeLandmarker", None)
    again = landmarks.tracked_video(video, tmp_path / "task", tmp_path / "kept")
    assert (again.points == found.points).all()
    assert (again.fps, again.names) == (25.0, ("a",) * 52)


def test_a_video_that_begins_without_a_face_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landmarks, "MediaPipeLandmarker", Film)
    monkeypatch.setattr(Film, "detect_next", lambda self, picture, milliseconds: None)
    video = write_video(tmp_path / "v.mp4", [moving_square(i) for i in range(4)])
    with pytest.raises(UsageError, match="no-face"):
        landmarks.tracked_video(video, tmp_path / "task", tmp_path / "kept")
