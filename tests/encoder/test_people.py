"""Who is in a video: people told apart, ranked over the clip, named when they are not stored."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.cli.encode import main
from sglat.decoder.paint import read_track
from sglat.encoder import analysis as analysis_module
from sglat.encoder.people import People, PeopleConfig, face_vector, find_people
from sglat.encoder.track import Track, TrackConfig, track
from sglat.encoder.workfile import WorkFile
from sglat.errors import FaceError
from sglat.media.reader import VideoReader
from sglat.networks.faces import FaceLandmarks
from tests.encoder.test_encode import Eyes, drawn_bundle
from tests.support.faces import DrawnFaces, draw_face, face_points
from tests.support.video import write_video

WALL = np.full((96, 160, 3), 60, np.uint8)
RED, BLUE = (160, 40, 40), (40, 60, 160)
CONFIG = PeopleConfig(resolution=32)
Faces = list[tuple[float, float, float, tuple[int, int, int]]]
"""Centre x and y, size, and the colour of the mouth, by which people differ."""


class ByMouth(DrawnFaces):
    """Tells drawn people apart by the colour of their mouths."""

    def embed(self, crops: Tensor) -> Tensor:
        warm = (crops[:, 0] - crops[:, 2])[:, 18:28, 10:22].mean((1, 2))
        angle = torch.where(warm > 0.3, 0.0, torch.pi / 2)
        return F.normalize(torch.stack([angle.cos(), angle.sin()], 1), dim=1)


class PastTheBorder(ByMouth):
    """Places the hidden part of a face beyond the right border, by its height."""

    def landmarks(  # type: ignore[no-untyped-def]
        self, picture, box, *, previous=None
    ) -> FaceLandmarks:
        found = super().landmarks(picture, box, previous=previous)
        near = self._near(picture, box)
        if near is None:
            return found
        size = (near.bottom - near.top) / 0.96
        x, y = near.left + 0.36 * size, (near.top + near.bottom) / 2
        return replace(found, points=face_points(x, y, size))


def clip(path: Path, frames: list[Faces], wall: np.ndarray = WALL) -> Path:
    pictures = []
    for faces in frames:
        picture = wall
        for x, y, size, colour in faces:
            picture = draw_face(picture, x, y, size)
            rows, columns = np.mgrid[0 : wall.shape[0], 0 : wall.shape[1]]
            u, v = (columns + 0.5 - x) / size, (rows + 0.5 - y) / size
            picture[(u / 0.15) ** 2 + ((v - 0.22) / 0.12) ** 2 < 1] = colour
        pictures.append(picture)
    return write_video(path, pictures, codec="ffv1", pixel_format="bgra")


def found(tmp_path: Path, path: Path) -> People:
    store = WorkFile(tmp_path / "people", source="a").open("people", "a")
    return find_people(path, ByMouth(), store, CONFIG, torch.device("cpu"))


def followed(tmp_path: Path, path: Path, people: People, **config: int) -> Track:
    store = WorkFile(tmp_path / "track", source="a").open("track", str(config))
    return track(path, ByMouth(), store, TrackConfig(**config), people=people)


def test_the_largest_over_the_clip_is_the_first_face(tmp_path: Path) -> None:
    back: Faces = [(35, 40, 34, RED)]
    path = clip(tmp_path / "a.mkv", [back] * 9 + [[*back, (110, 48, 80, BLUE)]] * 16)
    people = found(tmp_path, path)
    assert [round(face.side) > 45 for face in people.faces] == [True, False]
    result = followed(tmp_path, path, people)
    assert result.held.tolist() == [True] * 9 + [False] * 16
    assert result.points[20, :, 0].mean() == pytest.approx(110, abs=4)
    assert any("2 faces seen" in line for line in result.messages())


def test_a_face_counts_for_as_many_frames_as_it_is_seen_in(tmp_path: Path) -> None:
    small, large = (35, 40, 34, RED), (110, 48, 72, BLUE)
    path = clip(tmp_path / "a.mkv", [[small, large]] * 2 + [[small]] * 10)
    people = found(tmp_path, path)
    assert [face.share for face in people.faces] == pytest.approx([1, 1 / 6])
    assert round(people.faces[0].side) < 45


def test_a_sample_at_a_jump_stands_for_the_frames_up_to_the_next_one(tmp_path: Path) -> None:
    back, front = (35, 40, 34, RED), (110, 48, 72, BLUE)
    seen: list[Faces] = [[back]] * 160
    for frame in (4, 30, 52, 78, 100, 125):  # each a jump at either end
        seen[frame] = [back, front]
    people = found(tmp_path, clip(tmp_path / "a.mkv", seen))
    assert [face.share for face in people.faces] == pytest.approx([1, 6 / 160])


def test_the_smaller_face_may_be_chosen(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(35, 40, 34, RED), (110, 48, 80, BLUE)]] * 12)
    result = followed(tmp_path, path, found(tmp_path, path), face=2)
    assert result.points[8, :, 0].mean() == pytest.approx(35, abs=3)
    assert not result.held.any()


def test_another_person_after_a_cut_before_the_same_wall_is_held_and_named(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(60, 48, 72, RED)]] * 11 + [[(78, 50, 76, BLUE)]] * 12)
    people = found(tmp_path, path)
    result = followed(tmp_path, path, people)
    assert len(people.faces) == 2
    assert np.flatnonzero(result.cut).tolist() == [11]
    assert result.held.tolist() == result.other.tolist() == [False] * 11 + [True] * 12
    assert any("another person from 0:00 (frame 11)" in line for line in result.messages())


def test_the_one_after_the_cut_may_be_chosen(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(60, 48, 72, RED)]] * 11 + [[(78, 50, 76, BLUE)]] * 12)
    result = followed(tmp_path, path, found(tmp_path, path), face=2)
    assert result.held.tolist() == [True] * 11 + [False] * 12


def test_who_comes_back_after_another_is_followed_again(tmp_path: Path) -> None:
    mine, other = [[(60, 48, 72, RED)]], [[(78, 50, 76, BLUE)]]
    path = clip(tmp_path / "a.mkv", mine * 8 + other * 7 + mine * 8)
    people = found(tmp_path, path)
    result = followed(tmp_path, path, people)
    assert len(people.faces) == 2
    assert result.held.tolist() == [False] * 8 + [True] * 7 + [False] * 8


def test_one_person_is_one_person(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(60 + i, 48, 72, RED)] for i in range(20)])
    assert len(found(tmp_path, path).faces) == 1


def test_a_jump_of_the_same_person_is_a_cut(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(45, 48, 50, RED)]] * 8 + [[(95, 48, 80, RED)]] * 8)
    people = found(tmp_path, path)
    result = followed(tmp_path, path, people)
    assert len(people.faces) == 1
    assert np.flatnonzero(result.cut).tolist() == [8]
    assert not result.held.any()


def test_a_face_that_leaves_the_frame_is_held_and_said(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(100 + 6 * i, 48, 70, RED)] for i in range(12)])
    store = WorkFile(tmp_path / "track", source="a").open("track", "a")
    result = track(path, PastTheBorder(), store)
    assert not result.leaving[:6].any()
    assert result.leaving[8:].all()
    assert not result.held[:8].any()
    assert result.held[-2:].all()
    leaving, held = int(result.leaving.sum()), int(result.held.sum())
    assert f"face leaves the frame in {leaving} frames, {held} of them held" in result.messages()
    assert not any("no face" in line for line in result.messages())


def test_an_interrupted_search_finds_the_same_people(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(60, 48, 72, RED)]] * 8 + [[(78, 50, 76, BLUE)]] * 8)
    first, again = found(tmp_path, path), found(tmp_path, path)
    assert [f.frames.tolist() for f in first.faces] == [f.frames.tolist() for f in again.faces]


def test_a_number_too_high_is_refused(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(60, 48, 72, RED)]] * 4)
    with pytest.raises(FaceError, match="face 3 was asked for, 1 found"):
        followed(tmp_path, path, found(tmp_path, path), face=3)


def test_a_person_is_found_by_likeness(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mkv", [[(35, 40, 34, RED), (110, 48, 80, BLUE)]] * 8)
    people = found(tmp_path, path)
    assert people.like(np.array([1.0, 0.0], np.float32), CONFIG.same) == 2
    with pytest.raises(FaceError, match="nobody in the video"):
        people.like(np.array([-0.8, -0.6], np.float32), CONFIG.same)


class Actors(ByMouth, Eyes):
    """Everything an encoding needs, at any resolution."""

    def embed(self, crops: Tensor) -> Tensor:
        return super().embed(F.interpolate(crops, (32, 32)))


@pytest.fixture
def actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = drawn_bundle(tmp_path / "tiny")
    bundle.__dict__["faces"] = Actors()
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A small red-mouthed face at the left and a large blue-mouthed one."""
    return clip(tmp_path / "a.mkv", [[(35, 40, 34, RED), (110, 48, 80, BLUE)]] * 8)


def command(*arguments: object) -> int:
    """Run `sgl-encode` in this process; return the exit status."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(sys, "argv", ["sgl-encode", *map(str, arguments)])
        main()
    return int(caught.value.code or 0)


@pytest.mark.usefixtures("actors")
def test_the_command_lists_the_faces(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(pair, tmp_path / "who.png", "--list-faces") == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert rows[0] == ["face", "from", "to", "side", "share"]
    assert [(row[0], row[-1]) for row in rows[1:]] == [("1", "100%"), ("2", "100%")]
    assert int(rows[1][-2]) > 50 > int(rows[2][-2])
    assert "2 faces; choose with --face N or --like PICTURE" in shown.err
    assert cv2.imread(str(tmp_path / "who.png")).shape == (320, 480, 3)


@pytest.mark.usefixtures("actors")
def test_the_list_keeps_a_sheet_that_exists(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "who.png").write_bytes(b"mine")
    assert command(pair, tmp_path / "who.png", "--list-faces") == 2
    assert capsys.readouterr().err.startswith("error: output-exists")
    assert (tmp_path / "who.png").read_bytes() == b"mine"


@pytest.mark.usefixtures("actors")
def test_the_list_names_the_sheet_after_the_sglat_file(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(pair, tmp_path / "out.sglat", "--list-faces", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [face["face"] for face in record["faces"]] == [1, 2]
    assert record["sheet"] == str(tmp_path / "out-faces.png")
    assert not (tmp_path / "out.sglat").exists()


@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize(("mouth", "x"), [(RED, 35), (BLUE, 110)])
def test_the_command_follows_the_person_of_a_picture(
    pair: Path, tmp_path: Path, mouth: tuple[int, int, int], x: float
) -> None:
    photo, out = portrait(tmp_path, mouth), tmp_path / "out.sglat"
    assert command(pair, out, "--like", photo, "--tuning", "none", "--no-self-check") == 0
    assert read_track(out).placement[:, 0] == pytest.approx(np.full(8, x), abs=4)


@pytest.mark.usefixtures("actors")
def test_a_picture_of_nobody_in_the_video_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = clip(tmp_path / "b.mkv", [[(110, 48, 80, BLUE)]] * 8)
    out, photo = tmp_path / "out.sglat", portrait(tmp_path, RED)
    assert command(alone, out, "--like", photo, "--quiet") == 1
    assert capsys.readouterr().err.startswith("error: no-such-face: nobody in the video is like")
    assert not out.exists()


@pytest.mark.usefixtures("actors")
def test_a_picture_without_a_face_is_one_line(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), WALL)
    out = tmp_path / "out.sglat"
    assert command(pair, out, "--like", tmp_path / "wall.png", "--quiet") == 1
    assert f"expected a face in {tmp_path / 'wall.png'}, found none" in capsys.readouterr().err


@pytest.mark.usefixtures("actors")
def test_a_number_and_a_picture_contradict_each_other(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = portrait(tmp_path, RED)
    assert command(pair, tmp_path / "out.sglat", "--like", photo, "--face", 2) == 2
    assert "--face and --like contradict each other" in capsys.readouterr().err


def portrait(folder: Path, mouth: tuple[int, int, int]) -> Path:
    """Write a photo of one person."""
    film = clip(folder / "photo.mkv", [[(80, 48, 70, mouth)]])
    with VideoReader(film) as reader:
        picture = next(iter(reader)).picture
    cv2.imwrite(str(folder / "photo.png"), picture[..., ::-1])
    return folder / "photo.png"


def crossing(path: Path) -> Path:
    """Two people change places, the red one in front."""
    share = np.clip((np.arange(24) - 3) / 16, 0, 1)
    return clip(path, [[(118 - 76 * s, 48, 72, BLUE), (42 + 76 * s, 48, 72, RED)] for s in share])


class Nearby(ByMouth):
    """Finds no face where two touch."""

    def detect(self, picture):  # type: ignore[no-untyped-def]
        return [box for box in super().detect(picture) if box.right - box.left < 70]


def test_people_who_change_places_stay_themselves(tmp_path: Path) -> None:
    path = crossing(tmp_path / "a.mkv")
    store = WorkFile(tmp_path / "people", source="a").open("people", "a")
    people = find_people(path, Nearby(), store, CONFIG, torch.device("cpu"))
    assert len(people.faces) == 2
    for face in people.faces:
        assert np.ptp(face.vectors[:, 0]) < 0.1  # one colour of the mouth throughout
        assert abs(face.boxes[-1, 0] - face.boxes[0, 0]) > 60


def test_a_face_is_not_followed_onto_another_person_who_passes(tmp_path: Path) -> None:
    path = crossing(tmp_path / "a.mkv")
    store = WorkFile(tmp_path / "people", source="a").open("people", "a")
    people = find_people(path, Nearby(), store, CONFIG, torch.device("cpu"))
    eyes = Nearby()

    def identify(picture, points):  # type: ignore[no-untyped-def]
        return face_vector(eyes, picture, points, CONFIG.resolution, torch.device("cpu"))

    for number, person in enumerate(people.faces, 1):
        own = WorkFile(tmp_path / f"{number}", source="a").open("track", "a")
        config = TrackConfig(face=number)
        result = track(path, eyes, own, config, people=people, identify=identify)
        shown = np.flatnonzero(~result.held)
        assert {0, 23} <= set(shown.tolist())
        with VideoReader(path) as reader:
            pictures = [frame.picture for frame in reader]
        likeness = [
            float(identify(pictures[row], result.points[row])[:2] @ person.vectors[0, :2])
            for row in shown
        ]
        assert min(likeness) > 0.7
