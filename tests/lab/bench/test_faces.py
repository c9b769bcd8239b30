"""Figures of the face networks from drawn clips: perfect networks score perfectly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sglat.networks.face_points import LEFT_EYE, RIGHT_EYE
from sglat.networks.faces import FaceBox, FaceLandmarks
from sglat_lab.bench import faces, faces_measures
from sglat_lab.bench.faces_measures import Clip
from sglat_lab.measure.landmarks import Tracked
from sglat_lab.train.faces_landmarks import eye_aspect

FRAMES = 20


def box(points: np.ndarray, score: float = 1.0) -> FaceBox:
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return FaceBox(left=left, top=top, right=right, bottom=bottom, score=score)


def made() -> Clip:
    """Return a clip whose networks agree with the labels; both eyes shut in two frames."""
    random = np.random.default_rng(0)
    points = np.repeat(random.uniform(100, 200, (1, 478, 3)), FRAMES, axis=0).astype(np.float32)
    for eye, left in ((LEFT_EYE, 160.0), (RIGHT_EYE, 120.0)):
        shape = np.array([(0, 0), (8, -4), (16, -4), (24, 0), (16, 4), (8, 4)], np.float32)
        points[:, list(eye), :2] = shape + np.float32((left, 140))
        points[8:10, list(eye), 1] = 140
    angles = random.normal(size=(FRAMES, 3))
    shapes = random.random((FRAMES, 52)).astype(np.float32)
    openness = eye_aspect(points[:, :, :2])
    tracks = [
        FaceLandmarks(
            points=points[t, :, :2], yaw_degrees=angles[t, 0], pitch_degrees=angles[t, 1],
            roll_degrees=angles[t, 2], eye_openness=tuple(openness[t]), blendshapes=shapes[t],
            score=1.0,
        )
        for t in range(FRAMES)
    ]  # fmt: skip
    labels = Tracked(
        points=points, blendshapes=shapes, names=(), angles=angles,
        is_found=np.ones(FRAMES, bool), fps=25.0,
    )  # fmt: skip
    return Clip(
        name="one",
        frames=[np.zeros((256, 256, 3), np.uint8)] * FRAMES,
        labels=labels,
        boxes=[box(points[t, :, :2]) for t in range(FRAMES)],
        tracks=tracks,
    )


def test_tracks_that_are_the_labels_have_no_error_and_find_every_blink() -> None:
    found = faces_measures.landmark_figures([made()])
    for key in ("points", "iris", "pose", "blendshapes", "eyes"):
        assert found[key] == pytest.approx(0, abs=1e-5)
    assert (found["blink_precision"], found["blink_recall"], found["blink_f1"]) == (1, 1, 1)
    assert found["clips"]["one"]["truly_shut"] == 4  # two eyes in two frames
    assert found["jitter"] == pytest.approx(found["jitter_teacher"])


def test_errors_are_in_percent_of_the_distance_of_the_eyes() -> None:
    clip = made()
    unit = faces_measures.eye_distance(clip.points)[0]
    shifted = [replace(t, points=t.points + np.float32((unit / 10, 0))) for t in clip.tracks]
    found = faces_measures.landmark_figures([replace(clip, tracks=shifted)])
    assert found["points"] == pytest.approx(10, rel=1e-3)


def test_an_overlap_is_one_for_the_box_itself_and_nothing_without_a_box() -> None:
    points = np.array([(0, 0), (10, 10)], np.float32)
    assert faces_measures.overlap(box(points), points) == pytest.approx(1)
    half = FaceBox(left=0, top=0, right=10, bottom=5, score=1)
    assert faces_measures.overlap(half, points) == pytest.approx(0.5)
    assert faces_measures.overlap(None, points) == 0


def test_a_straight_line_has_no_second_difference() -> None:
    line = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 3, 2), np.float32)
    assert faces_measures.second_difference(line).tolist() == [0, 0, 0]
    line[2] += np.float32((3, 4))
    assert faces_measures.second_difference(line).max() == pytest.approx(10)


def test_figures_are_rounded_in_nests() -> None:
    nested = {"a": 1.23456, "b": [0.00004, {"c": 2}], "d": "text"}
    assert faces.rounded(nested) == {"a": 1.2346, "b": [0.0, {"c": 2}], "d": "text"}


def test_an_aligned_crop_is_cut_around_the_labelled_face() -> None:
    clip = made()
    frame = clip.frames[0].copy()
    left, right = (clip.points[0, list(eye)].mean(0) for eye in (LEFT_EYE, RIGHT_EYE))
    middle = ((left + right) / 2).astype(int)
    frame[middle[1] - 3 : middle[1] + 4, middle[0] - 3 : middle[0] + 4] = 255
    crop = replace(clip, frames=[frame] * FRAMES).crop(0, 64)
    assert crop.shape == (64, 64, 3)
    assert crop.max() > 100


def test_weights_without_a_manifest_are_read_by_role(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        faces.load_faces(tmp_path)
    bundle = Path(faces.__file__).parents[2] / "sglat" / "bundles" / "mini"
    networks = faces.load_faces(bundle)
    crop = np.zeros((64, 64, 3), np.uint8)
    assert networks.detect(crop) == []
