"""Following one face through gaps, cuts and crowds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sglat.encoder.track import Track, TrackConfig, find_blinks, track
from sglat.encoder.workfile import CHUNK, Store, WorkFile
from sglat.errors import FaceError
from tests.support.faces import DrawnFaces, draw_face
from tests.support.video import write_video

GROUND = np.full((96, 128, 3), 60, np.uint8)


def video(path: Path, faces: list[list[tuple[float, float, float]]]) -> Path:
    """Write one frame for each list of faces (x, y, size)."""
    pictures = []
    for frame in faces:
        picture = GROUND
        for face in frame:
            picture = draw_face(picture, *face)
        pictures.append(picture)
    return write_video(path, pictures, codec="ffv1", pixel_format="bgra")


def store_of(folder: Path, name: str = "w") -> Store:
    return WorkFile(folder / name, source="a").open("track", "a")


def follow(tmp_path: Path, faces: list[list[tuple[float, float, float]]], **config: int) -> Track:
    path = video(tmp_path / "a.mkv", faces)
    return track(path, DrawnFaces(), store_of(tmp_path), TrackConfig(**config))


def middle(result: Track, frame: int) -> np.ndarray:
    return result.points[frame, [33, 263]].mean(axis=0)


def test_a_moving_face_is_followed(tmp_path: Path) -> None:
    result = follow(tmp_path, [[(40 + 2 * i, 48, 50)] for i in range(12)])
    travelled = middle(result, 11)[0] - middle(result, 0)[0]
    assert travelled == pytest.approx(22, abs=1.5)
    assert not result.held.any()


def test_the_face_is_searched_once_and_then_followed(tmp_path: Path) -> None:
    faces = DrawnFaces()
    path = video(tmp_path / "a.mkv", [[(60 + i, 48, 50)] for i in range(10)])
    track(path, faces, store_of(tmp_path))
    assert faces.detections == 1


@pytest.mark.parametrize(("choice", "x"), [(1, 85), (2, 28)])
def test_of_two_faces_the_wanted_one_is_followed(tmp_path: Path, choice: int, x: float) -> None:
    result = follow(tmp_path, [[(28, 48, 34), (85, 48, 60)]] * 4, face=choice)
    assert middle(result, 3)[0] == pytest.approx(x, abs=2)


def test_several_faces_are_reported(tmp_path: Path) -> None:
    result = follow(tmp_path, [[(28, 48, 34), (85, 48, 60)]] * 2)
    assert any("2 faces" in line for line in result.messages())


def test_a_face_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="no-such-face"):
        follow(tmp_path, [[(60, 48, 50)]] * 2, face=2)


def test_no_face_at_all_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="no-face"):
        follow(tmp_path, [[]] * 3)


def test_a_gap_is_held_and_reported(tmp_path: Path) -> None:
    faces = [[(60, 48, 50)]] * 3 + [[]] * 2 + [[(64, 48, 50)]] * 3
    result = follow(tmp_path, faces)
    assert result.held.tolist() == [False] * 3 + [True] * 2 + [False] * 3
    assert np.array_equal(result.points[3], result.points[2])
    assert any("2 of 8" in line for line in result.messages())


def test_frames_before_the_first_face_show_it(tmp_path: Path) -> None:
    result = follow(tmp_path, [[]] * 2 + [[(60, 48, 50)]] * 2)
    assert result.held.tolist() == [True, True, False, False]
    assert np.array_equal(result.points[0], result.points[2])


def test_a_cut_is_found_and_the_face_is_searched_again(tmp_path: Path) -> None:
    before = [draw_face(GROUND, 40, 48, 50)] * 4
    after = [draw_face(np.full_like(GROUND, 200), 80, 48, 50)] * 4
    path = write_video(tmp_path / "a.mkv", before + after, codec="ffv1", pixel_format="bgra")
    result = track(path, DrawnFaces(), store_of(tmp_path))
    assert np.flatnonzero(result.cut).tolist() == [4]
    assert middle(result, 4)[0] == pytest.approx(80, abs=2)


class ThroughFades(DrawnFaces):
    """Finds drawn faces that fade to white, down to a fifth of their contrast."""

    def _unfaded(self, picture: np.ndarray) -> np.ndarray:
        share = (255.0 - picture.min()) / 225
        if share < 0.2:
            return picture
        return np.clip(255 - (255 - picture.astype(float)) / share, 0, 255).astype(np.uint8)

    def detect(self, picture):  # type: ignore[no-untyped-def]
        return super().detect(self._unfaded(picture))

    def landmarks(self, picture, box, *, previous=None):  # type: ignore[no-untyped-def]
        return super().landmarks(self._unfaded(picture), box, previous=previous)


def faded(tmp_path: Path, shares: list[float]) -> Track:
    bright = draw_face(GROUND, 60, 48, 60).astype(float)
    pictures = [(bright * share + 255 * (1 - share)).astype(np.uint8) for share in shares]
    path = write_video(tmp_path / "a.mkv", pictures, codec="ffv1", pixel_format="bgra")
    return track(path, ThroughFades(), store_of(tmp_path), TrackConfig())


def test_the_dim_end_of_a_fade_is_held_with_what_follows(tmp_path: Path) -> None:
    result = faded(tmp_path, [1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.25, 0, 0])
    assert result.held.tolist() == [False] * 7 + [True] * 4
    assert result.shown.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6]
    assert "face fades in 2 of 11 frames: held" in result.messages()
    assert "no face in 2 of 11 frames: held" in result.messages()


def test_a_dim_face_that_no_gap_follows_is_not_held(tmp_path: Path) -> None:
    assert not faded(tmp_path, [1, 1, 1, 1, 1, 0.6, 0.4, 0.4, 0.4, 0.6]).held.any()


def test_one_frame_is_enough(tmp_path: Path) -> None:
    assert len(follow(tmp_path, [[(60, 48, 50)]])) == 1


def test_an_interrupted_run_ends_with_the_same_records(tmp_path: Path) -> None:
    faces = [[(30 + 0.5 * i, 48, 50)] for i in range(CHUNK + 20)]
    path = video(tmp_path / "a.mkv", faces)
    whole = track(path, DrawnFaces(), store_of(tmp_path, "whole"))

    def stop(done: int, total: int) -> None:
        assert total == CHUNK + 20
        if done == CHUNK + 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        track(path, DrawnFaces(), store_of(tmp_path, "cut"), progress=stop)
    resumed = track(path, DrawnFaces(), store_of(tmp_path, "cut"))
    assert store_of(tmp_path, "cut").rows == CHUNK + 20
    for name in ("pts", "points", "pose", "openness", "score", "held", "cut", "blink"):
        assert np.array_equal(getattr(whole, name), getattr(resumed, name)), name


def test_a_blink_is_found_with_its_margin() -> None:
    openness = np.full((20, 2), 0.3, np.float32)
    openness[10] = 0.05
    found = find_blinks(openness, np.zeros((20, 52)), np.zeros(20, bool), TrackConfig())
    assert np.flatnonzero(found).tolist() == list(range(7, 14))


def test_narrow_eyes_do_not_blink_all_the_time() -> None:
    openness = np.full((20, 2), 0.17, np.float32)
    found = find_blinks(openness, np.zeros((20, 52)), np.zeros(20, bool), TrackConfig())
    assert not found.any()
