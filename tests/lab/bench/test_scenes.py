"""What is known of two people on moving cards, and the figures made from it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sglat.decoder.paint import FaceTrack
from sglat_lab.bench.scene_clips import HEIGHT, LEFT, RIGHT, SCENES, SIDE, TOP, WIDTH
from sglat_lab.bench.scenes import Truth, face_psnr, oval, place_errors, shares

SIZE = (WIDTH, HEIGHT)


def truth(frames: int = 80) -> Truth:
    random = np.random.default_rng(0)
    points = SIDE / 2 + random.uniform(-80, 80, (1, 478, 2)).repeat(frames, 0)
    return Truth(points=points.astype(np.float32), vectors=np.eye(2, dtype=np.float32)[:1])


BOTH = (truth(), truth())


def track(centres: list[tuple[float, float] | None]) -> FaceTrack:
    placed = [(*(c or (0.0, 0.0)), 300.0, 0.0) for c in centres]
    held = np.array([c is None for c in centres])
    return FaceTrack(
        seconds=np.arange(len(centres)) / 25, placement=np.array(placed), is_held=held,
        is_cut=np.zeros(len(centres), bool), size=SIZE,
    )  # fmt: skip


def test_people_change_places_and_the_one_behind_is_hidden_on_the_way() -> None:
    scene = SCENES["crossing"]
    last = scene.frames - 1
    assert scene.at(0) == ((LEFT, TOP), (RIGHT, TOP))
    assert scene.at(last) == ((RIGHT, TOP), (LEFT, TOP))
    assert shares(scene, 0, BOTH, SIZE) == [1, 1]
    hidden = [shares(scene, frame, BOTH, SIZE) for frame in range(scene.frames)]
    assert min(first for first, _ in hidden) == 0
    assert all(second == 1 for _, second in hidden)


def test_who_is_out_of_the_frame_or_cut_away_is_not_seen() -> None:
    assert min(shares(SCENES["leaving"], frame, BOTH, SIZE)[1] for frame in range(70)) == 0
    cut = [shares(SCENES["cut"], frame, BOTH, (SIDE, SIDE)) for frame in (0, 30, 59)]
    assert cut == [[1, 0], [0, 1], [1, 0]]


def test_a_track_on_the_other_person_and_a_missed_frame_are_counted() -> None:
    scene = SCENES["beside"]
    middle = SIDE / 2
    own, other = (LEFT + middle, TOP + middle), (RIGHT + middle, TOP + middle)
    centres: list[tuple[float, float] | None] = [own] * scene.frames
    centres[3], centres[4], centres[5] = other, other, None
    found = place_errors(scene, track(centres), 0, BOTH, SIZE)
    assert json.loads(json.dumps(found)) == {"frames_on_the_other": 2, "visible_frames_missed": 1}


def test_the_error_of_a_face_counts_within_its_oval_alone() -> None:
    source = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    shown = source + 200
    shown[oval(BOTH[0].points[0], (LEFT, TOP), source.shape) > 0] = 16
    quality = face_psnr([shown], [source], BOTH[0], [(LEFT, TOP)])
    assert quality == pytest.approx(20 * np.log10(255 / 16))
