"""Steady crops: framing, registration, key frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sglat.decoder.placement import (
    SIZE,
    crop_to_frame,
    frame_to_crop,
    placement_from_matrix,
    transform_points,
)
from sglat.encoder.align import AlignConfig, Alignment, align, join
from sglat.encoder.crops import crop_picture, landmark_placement, rigid_face_mask
from sglat.encoder.registration import FlowConfig, KeyFrame, warp
from sglat.encoder.track import Track, track
from sglat.encoder.workfile import CHUNK, WorkFile
from tests.support.faces import DrawnFaces, draw_face, face_points
from tests.support.tolerances import (
    CROP_ROUND_TRIP_PIXELS,
    REGISTRATION_PIXELS,
    STEADIER_THAN_LANDMARKS,
)
from tests.support.video import write_video

GROUND = np.full((160, 200, 3), 60, np.uint8)
RESOLUTION = 64


def still_points(count: int, *, shut_frame: int | None = None) -> np.ndarray:
    return np.stack([face_points(100, 80, 90, shut=i == shut_frame) for i in range(count)])


def run(folder: Path, pictures: list[np.ndarray], faces: DrawnFaces) -> tuple[Track, Alignment]:
    path = folder / "a.mkv"
    if not path.exists():
        write_video(path, pictures, codec="ffv1", pixel_format="bgra")
    work = WorkFile(folder / "w", source="a")
    found = track(path, faces, work.open("track", "a"))
    stores = work.open("register", "a"), work.open("crops", "a")
    return found, align(path, found, *stores, config=AlignConfig(resolution=RESOLUTION))


def test_framing_follows_the_ffhq_recipe() -> None:
    points = still_points(1).astype(float)
    left, right = (
        points[0, [362, 385, 387, 263, 373, 380]],
        points[0, [33, 160, 158, 133, 153, 144]],
    )
    middle = (left.mean(0) + right.mean(0)) / 2
    down = points[0, [61, 291]].mean(0) - middle
    across = np.hypot(*(left.mean(0) - right.mean(0)))
    side = 2 * max(2.0 * across, 1.8 * np.hypot(*down))
    found = landmark_placement(points.astype(np.float32), blink=np.zeros(1, bool))[0]
    assert found == pytest.approx([*(middle + 0.1 * down), side, 0.0], abs=0.02)


def test_a_blink_does_not_move_the_frame() -> None:
    points = still_points(9, shut_frame=4)
    blink = np.arange(9) == 4
    placement = landmark_placement(points, blink=blink)
    assert np.abs(placement[4] - placement[3]).max() < 0.02


def test_an_open_mouth_does_not_zoom() -> None:
    points = still_points(9)
    points[4, [61, 291], 1] += 12.0
    still = np.zeros(9, bool)
    placement = landmark_placement(points, blink=still)
    by_recipe = landmark_placement(points, blink=still, steady_mouth=False)
    assert np.abs(placement[4] - placement[3]).max() < 0.02
    assert abs(by_recipe[4, SIZE] - by_recipe[3, SIZE]) > 5


def test_a_tilted_head_stands_upright_in_the_crop() -> None:
    turn = np.deg2rad(20)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (still_points(1) - (100, 80)) @ rotation.T + (100, 80)
    placement = landmark_placement(points.astype(np.float32), blink=np.zeros(1, bool))
    inside = transform_points(frame_to_crop(placement[0]), points[0])
    eyes = inside[[33, 133]].mean(0), inside[[362, 263]].mean(0)
    assert placement[0, 3] == pytest.approx(20, abs=0.05)
    assert eyes[0][1] == pytest.approx(eyes[1][1], abs=1e-3)


def test_placement_and_matrix_are_inverse() -> None:
    placement = np.array([[120.5, 80.25, 64.0, -17.0], [10.0, 20.0, 300.0, 45.0]])
    assert placement_from_matrix(crop_to_frame(placement)) == pytest.approx(placement)


def test_a_crop_shows_what_lies_under_it() -> None:
    rows, columns = np.mgrid[0:160, 0:200]
    picture = np.stack([columns, rows, columns], axis=-1).astype(np.uint8)
    placement = np.array([100.0, 80.0, 64.0, 30.0])
    crop = crop_picture(picture, placement, 64).astype(float)
    centres = (np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1) + 0.5) / 64
    expected = transform_points(crop_to_frame(placement), centres.reshape(-1, 2)) - 0.5
    assert np.abs(crop[..., :2].reshape(-1, 2) - expected).max() < CROP_ROUND_TRIP_PIXELS


def test_a_large_face_does_not_alias() -> None:
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = crop_picture(stripes, np.array([200.0, 200.0, 256.0, 0.0]), 32)
    assert crop.astype(int).std() < 20


def test_the_rigid_face_leaves_out_eyes_and_mouth() -> None:
    points = (face_points(0.5, 0.5, 0.8)).astype(float)
    mask = rigid_face_mask(points, 64)
    eye, mouth = points[[33, 133]].mean(0) * 64, points[[61, 291]].mean(0) * 64
    assert not mask[int(eye[1]), int(eye[0])]
    assert not mask[int(mouth[1]), int(mouth[0])]
    assert mask.mean() > 0.08


def flow_case() -> tuple[np.ndarray, np.ndarray]:
    picture = draw_face(np.full((64, 64, 3), 60, np.uint8), 32, 32, 56).astype(np.float32)
    mask = rigid_face_mask(face_points(0.5, 0.5, 0.875).astype(float), 64)
    return picture, mask


@pytest.mark.parametrize(
    "linear",
    [[[1.0, 0.0], [0.0, 1.0]], [[1.03, 0.02], [-0.02, 0.98]], [[0.97, -0.03], [0.03, 0.97]]],
)
def test_affine_flow_finds_a_known_motion(linear: list[list[float]]) -> None:
    picture, mask = flow_case()
    centred = np.array(linear)
    offset = np.array([0.02, -0.015]) + 0.5 - centred @ (0.5, 0.5)
    truth = np.column_stack([centred, offset])
    back = np.linalg.inv(centred)
    moved = warp(picture, np.column_stack([back, -back @ offset]))
    found = KeyFrame(picture, mask, FlowConfig()).register(moved)
    corners = np.array([[0.25, 0.2], [0.75, 0.2], [0.5, 0.8]])
    error = transform_points(found, corners) - transform_points(truth, corners)
    assert np.abs(error).max() * 64 < REGISTRATION_PIXELS


def test_affine_flow_shrugs_off_an_occlusion() -> None:
    picture, mask = flow_case()
    shifted = warp(picture, np.array([[1.0, 0, -0.02], [0, 1, 0.0]]))
    shifted[36:46, 40:54] = 255
    found = KeyFrame(picture, mask, FlowConfig()).register(shifted)
    centre = transform_points(found, np.array([[0.5, 0.5]]))[0]
    assert 64 * np.abs(centre - (0.52, 0.5)).max() < REGISTRATION_PIXELS


def test_affine_flow_ignores_what_lies_beyond_the_frame() -> None:
    """The left half of the face is mirrored from the right one; the right one has moved."""
    picture, mask = flow_case()
    shifted = warp(picture, np.array([[1.0, 0, -0.03], [0, 1, 0.02]]))
    shifted[:, :34] = shifted[:, 34:][:, ::-1][:, :30].repeat(2, axis=1)[:, -34:]
    inside = np.zeros((64, 64), bool)
    inside[:, 34:] = True
    key = KeyFrame(picture, mask, FlowConfig())
    found = key.register(shifted, inside)
    centre = transform_points(found, np.array([[0.65, 0.5]]))[0]
    assert 64 * np.abs(centre - (0.68, 0.48)).max() < REGISTRATION_PIXELS
    assert key.residual(shifted, found, inside) < key.residual(shifted, found) / 4


def test_a_crop_wholly_beyond_the_frame_is_never_registered() -> None:
    picture, mask = flow_case()
    assert KeyFrame(picture, mask, FlowConfig()).residual(
        picture, inside=np.zeros((64, 64), bool)
    ) == float("inf")


def test_registration_is_steadier_than_jittering_landmarks(tmp_path: Path) -> None:
    pictures = [draw_face(GROUND, 90 + 0.4 * i, 80, 90) for i in range(40)]
    found, aligned = run(tmp_path, pictures, DrawnFaces(jitter=1.0))
    framed = landmark_placement(found.points, blink=found.blink)

    def jitter(placement: np.ndarray) -> float:
        return float(np.abs(np.diff(placement[:, :3], 2, axis=0)).mean())

    assert jitter(aligned.placement) < STEADIER_THAN_LANDMARKS * jitter(framed)


def test_crops_come_in_two_forms(tmp_path: Path) -> None:
    _, aligned = run(tmp_path, [draw_face(GROUND, 100, 80, 90)] * 3, DrawnFaces())
    tensor = aligned.crops.tensor(range(3))
    assert tuple(tensor.shape) == (3, 3, RESOLUTION, RESOLUTION)
    assert -1 <= float(tensor.min()) < float(tensor.max()) <= 1
    assert aligned.crops.pictures([2, 0]).shape == (2, RESOLUTION, RESOLUTION, 3)


def test_a_changed_face_begins_a_new_key_frame(tmp_path: Path) -> None:
    pictures = [draw_face(GROUND, 100, 80, 90)] * 4
    pictures += [np.clip(p.astype(int) * 0.8, 0, 255).astype(np.uint8) for p in pictures]
    _, aligned = run(tmp_path, pictures, BrightBlind())
    assert aligned.key_frame.tolist() == [0, 0, 0, 0, 4, 4, 4, 4]


class BrightBlind(DrawnFaces):
    """Finds the face whatever the light."""

    def landmarks(self, picture, box, *, previous=None):  # type: ignore[no-untyped-def]
        lit = np.clip(picture.astype(int) * (1.25 if picture[0, 0, 0] < 55 else 1), 0, 255)
        return super().landmarks(lit.astype(np.uint8), box, previous=previous)


def test_a_cut_begins_a_new_key_frame(tmp_path: Path) -> None:
    bright = np.full_like(GROUND, 150)
    pictures = [draw_face(GROUND, 100, 80, 90)] * 3 + [draw_face(bright, 90, 80, 90)] * 3
    _, aligned = run(tmp_path, pictures, DrawnFaces())
    assert aligned.key_frame.tolist() == [0, 0, 0, 3, 3, 3]


def test_held_frames_stay_where_the_face_was_and_the_next_begins_a_new_key_frame(
    tmp_path: Path,
) -> None:
    pictures = [draw_face(GROUND, 100 + i, 80, 90) for i in range(9)]
    pictures[4:6] = [GROUND, GROUND]
    found, aligned = run(tmp_path, pictures, DrawnFaces())
    assert found.breaks.nonzero()[0].tolist() == [4, 6]
    assert np.array_equal(aligned.placement[4:6], aligned.placement[[3, 3]])
    assert aligned.key_frame[6] == 6


def test_nothing_is_smoothed_across_a_cut() -> None:
    framed = np.repeat([[0.0, 0, 10, 0], [100, 0, 10, 0]], 10, axis=0)
    joined = join(
        framed, framed, np.zeros(20, bool), np.arange(20), np.full((20, 4), np.nan),
        cut=np.arange(20) == 10, sigma_frames=5,
    )  # fmt: skip
    assert joined == pytest.approx(framed)


def test_an_interrupted_alignment_ends_with_the_same_crops(tmp_path: Path) -> None:
    pictures = [draw_face(GROUND, 90 + 0.2 * i, 80, 90) for i in range(CHUNK + 16)]
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "a.mkv", pictures, codec="ffv1", pixel_format="bgra")
    _, whole = run(tmp_path / "whole", pictures, DrawnFaces())
    path = tmp_path / "cut" / "a.mkv"

    def attempt(stop_at: int | None) -> Alignment:
        work = WorkFile(tmp_path / "cut" / "w", source="a")
        found = track(path, DrawnFaces(), work.open("track", "a"))
        stores = work.open("register", "a"), work.open("crops", "a")

        def stop(done: int, total: int) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        config = AlignConfig(resolution=RESOLUTION)
        return align(path, found, *stores, config=config, progress=stop)

    for stop_at in (CHUNK + 5, 2 * CHUNK + 30):
        with pytest.raises(KeyboardInterrupt):
            attempt(stop_at)
    resumed = attempt(None)
    assert np.array_equal(resumed.placement, whole.placement)
    rows = range(len(whole.crops))
    assert np.array_equal(resumed.crops.pictures(rows), whole.crops.pictures(rows))


def test_the_size_is_positive(tmp_path: Path) -> None:
    _, aligned = run(tmp_path, [draw_face(GROUND, 100, 80, 90)], DrawnFaces())
    assert aligned.placement[0, SIZE] > 0
