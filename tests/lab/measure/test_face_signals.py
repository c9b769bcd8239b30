"""Measures over time: correlation, jitter, gaze, and MediaPipe on real faces."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from sglat.errors import UsageError
from sglat_lab.measure import face_signals, landmarks
from tests.lab.measure.faces import shared_faces
from tests.support.shared import shared_path


def waves(count: int = 80) -> np.ndarray:
    time = np.arange(count) / 25
    return np.stack([np.sin(3 * time), np.cos(5 * time)], axis=1)


def made(points: np.ndarray, pose: np.ndarray) -> landmarks.Signals:
    shapes = np.zeros((len(points), 52), np.float32)
    shapes[:, 25] = 0.5 + 0.4 * pose[:, 0] / np.abs(pose).max()
    return landmarks.Signals(
        points=points.astype(np.float32), blendshapes=shapes, pose=pose.astype(np.float32)
    )


def still_points(count: int) -> np.ndarray:
    return np.repeat(np.random.default_rng(0).random((1, 478, 2)), count, axis=0)


def test_a_sequence_correlates_fully_with_itself() -> None:
    assert face_signals.correlation(waves(), waves(), 0.01) == pytest.approx(1)


def test_an_unrelated_sequence_does_not_correlate() -> None:
    noise = np.random.default_rng(0).normal(size=(4000, 2))
    other = np.random.default_rng(1).normal(size=(4000, 2))
    assert abs(face_signals.correlation(noise, other, 0.01)) < 0.05


def test_a_frozen_rendering_scores_nothing() -> None:
    assert face_signals.correlation(np.zeros_like(waves()), waves(), 0.01) == 0


def test_a_reference_that_does_not_move_is_not_measured() -> None:
    assert face_signals.correlation(waves(), np.zeros_like(waves()), 0.01) is None


def test_jitter_of_white_noise_is_its_deviation_in_pixels() -> None:
    noise = np.random.default_rng(0).normal(scale=0.5 / 128, size=(400, 478, 2))
    points = (still_points(400) + noise).astype(np.float32)
    assert face_signals.jitter_pixels(points, 128) == pytest.approx(0.5, rel=0.05)


def test_smooth_movement_is_hardly_jitter() -> None:
    path = 0.1 * waves(100)[:, None, :]
    points = (still_points(100) + path).astype(np.float32)
    assert face_signals.jitter_pixels(points, 128) < 0.15  # of 12.8 px of movement


def test_gaze_follows_the_irises_to_the_same_side() -> None:
    points = np.zeros((2, 478, 2), np.float32)
    for left, right, iris in ((33, 133, 468), (362, 263, 473)):
        points[:, left] = (0.1, 0.5)
        points[:, right] = (0.3, 0.5)
        points[0, iris], points[1, iris] = (0.2, 0.5), (0.25, 0.5)
    seen = face_signals.gaze(points)
    assert seen[0] == pytest.approx([0, 0], abs=1e-6)
    assert seen[1] == pytest.approx([0.25, 0], abs=1e-6)


def test_lost_faces_are_counted_and_left_out() -> None:
    pose = 10 * waves()
    whole = made(still_points(80), pose)
    broken = made(still_points(80), pose)
    broken.pose[10:20] = np.nan
    found = face_signals.compare(broken, whole, side=128)
    assert found["faces_lost"] == 10
    assert found["rho_pose"] == pytest.approx(1)


def test_sequences_of_other_length_are_refused() -> None:
    whole = made(still_points(80), 10 * waves())
    with pytest.raises(UsageError, match="sequence-length"):
        face_signals.compare(whole.cut(slice(0, 40)), whole, side=128)


def test_yaw_and_pitch_are_those_of_the_matrix() -> None:
    yaw, pitch = np.deg2rad(20), np.deg2rad(-10)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array(
        [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
    )
    # any positive scale of the columns leaves the angles alone
    found = landmarks.head_angles(3.0 * nod @ np.eye(3))[:2]
    assert found == pytest.approx((0, -10))
    assert landmarks.head_angles(2.0 * turn)[:2] == pytest.approx((20, 0))


def test_mediapipe_finds_real_faces_and_their_oval() -> None:
    if importlib.util.find_spec("mediapipe") is None:
        pytest.skip("needs the Python package mediapipe")
    pytest.importorskip("skimage")
    task = shared_path("teachers/face_landmarker_v2_with_blendshapes.task")
    landmarker = landmarks.MediaPipeLandmarker(task)
    faces = shared_faces(4, every=40)
    seen = landmarker.signals(np.concatenate([faces, np.zeros_like(faces[:1])]))
    landmarker.close()
    masks = face_signals.face_masks(seen.points, 128)
    assert seen.is_found.tolist() == [True] * 4 + [False]
    assert masks[4].all()  # no face: nothing is hidden
    assert (masks[:4].mean(axis=(1, 2)) > 0.15).all()
    assert (masks[:4].mean(axis=(1, 2)) < 0.6).all()
