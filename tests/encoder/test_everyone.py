"""Everybody in a video: a file each, the same as a single encoding's, and a scene that is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.reader import open_reader
from sglat.bitstream.scene import describe_file, read_scene
from sglat.bundles.bundle import Bundle
from sglat.encoder import analysis as analysis_module
from sglat.encoder import everyone as everyone_module
from sglat.encoder.crops import find_empty_plate
from sglat.encoder.encode import encode
from sglat.encoder.everyone import SceneResult, encode_all
from sglat.errors import FaceError, UsageError
from sglat.media.pictures import decode_picture
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import CONFIG, Eyes, see_drawn_faces
from tests.encoder.test_people import BLUE, RED, WALL, ByMouth, Faces, clip
from tests.support.video import write_video

LEFT, RIGHT = (42, 48, 60, RED), (116, 48, 72, BLUE)
FAST = replace(CONFIG, tune_steps=2, self_check=False)


class Both(ByMouth, Eyes):
    """Tells drawn people apart, and parses."""


def two_people_bundle(folder: Path) -> Bundle:
    bundle = see_drawn_faces(make_tiny_bundle(folder))
    bundle.__dict__["faces"] = Both()
    return bundle


@dataclass(frozen=True)
class Everyone:
    """One scene that several tests look at."""

    bundle: Bundle
    video: Path
    folder: Path
    result: SceneResult


@pytest.fixture(scope="module")
def everyone(tmp_path_factory: pytest.TempPathFactory) -> Everyone:
    folder = Path(tmp_path_factory.mktemp("everyone"))
    bundle = two_people_bundle(folder / "tiny")
    silent = clip(folder / "silent.mkv", [[LEFT, RIGHT]] * 10 + [[LEFT]] * 4)
    with VideoReader(silent) as reader:
        pictures = [frame.picture for frame in reader]
    silent.unlink()
    video = write_video(
        folder / "in.mkv", pictures, codec="ffv1", pixel_format="bgra", audio_codec="flac"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        result = encode_all(video, folder / "out", replace(FAST, plate=True))
    return Everyone(bundle, video, folder / "out", result)


@pytest.fixture
def bundle(everyone: Everyone, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: everyone.bundle)
    return everyone.bundle


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_person_has_a_file_that_the_scene_names(everyone: Everyone) -> None:
    scene, folder = read_scene(everyone.folder / "scene.json")
    assert names(folder) == ["person-1.sglat", "person-2.sglat", "plate.webp", "scene.json"]
    assert [person.shown_frames for person in scene.people] == [10, 14]
    assert [person.order for person in scene.people] == [1, 2]
    for person in scene.people:
        assert describe_file(folder / person.file).sha256 == person.sha256
    assert names(everyone.folder.parent) == ["in.mkv", "out", "tiny"]


def test_the_plate_shows_nobody(everyone: Everyone) -> None:
    plate = decode_picture((everyone.folder / "plate.webp").read_bytes(), what="plate")
    assert np.abs(plate[:, 100:150].astype(int) - WALL[:, 100:150]).mean() < 4


def test_a_file_is_that_of_a_single_encoding(
    everyone: Everyone, bundle: Bundle, tmp_path: Path
) -> None:
    single = replace(FAST, face=2, audio="none")
    encode(everyone.video, tmp_path / "one.sglat", single)
    file = everyone.folder / "person-2.sglat"
    assert (tmp_path / "one.sglat").read_bytes() == file.read_bytes()


def test_after_an_interruption_the_same_call_goes_on(
    bundle: Bundle, everyone: Everyone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str) -> None:
        if name == "person-2":
            raise KeyboardInterrupt

    config = replace(FAST, plate=True)
    with pytest.raises(KeyboardInterrupt):
        encode_all(everyone.video, tmp_path / "out", config, watch=stop)
    assert names(tmp_path) == ["out.work"]
    begun: list[str] = []
    encode_all(everyone.video, tmp_path / "out", config, watch=lambda name: begun.append(name))
    assert begun == ["video", "person-2"]
    assert names(tmp_path) == ["out"]
    for name in names(everyone.folder):
        assert (tmp_path / "out" / name).read_bytes() == (everyone.folder / name).read_bytes()


def test_only_the_first_file_has_the_sound(everyone: Everyone) -> None:
    sounds = []
    for number in (1, 2):
        with open_reader(everyone.folder / f"person-{number}.sglat") as found:
            sounds.append(found.audio_format is not None)
    assert sounds == [True, False]


def test_a_person_seen_for_a_few_frames_is_left_out_with_a_line(
    bundle: Bundle, tmp_path: Path
) -> None:
    video = clip(tmp_path / "a.mkv", [[LEFT]] * 12 + [[LEFT, RIGHT]] * 4)
    result = encode_all(video, tmp_path / "out", FAST)
    assert len(result.scene.people) == 1
    assert any("left out: seen in 4 frames" in line for line in result.messages)


def test_more_people_than_the_limit_are_named_and_the_largest_are_encoded(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everyone_module, "MOST_PEOPLE", 1)
    video = clip(tmp_path / "a.mkv", [[LEFT, RIGHT]] * 12)
    result = encode_all(video, tmp_path / "out", FAST)
    assert names(tmp_path / "out") == ["person-1.sglat", "scene.json"]
    assert any("2 people found: the 1 largest" in line for line in result.messages)


@pytest.mark.parametrize("frames", [[[]] * 12, [[LEFT]] * 3 + [[]] * 20])
def test_without_anybody_nothing_is_left_behind(
    bundle: Bundle, tmp_path: Path, frames: list[Faces]
) -> None:
    video = clip(tmp_path / "a.mkv", frames)
    with pytest.raises(FaceError) as caught:
        encode_all(video, tmp_path / "out", FAST)
    assert caught.value.code == "no-face"
    assert names(tmp_path) == ["a.mkv"]


def test_a_folder_that_is_not_empty_is_refused_before_any_work(tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mkv", [[LEFT]])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.txt"):
        encode_all(video, tmp_path / "out", replace(FAST, force=True))
    assert names(tmp_path) == ["a.mkv", "out"]


@pytest.mark.parametrize(
    "choice", [{"face": 2}, {"like": Path("a.png")}, {"identity": Path("a.sglat")}]
)
def test_a_choice_for_one_person_is_refused(tmp_path: Path, choice: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--all-faces"):
        encode_all(tmp_path / "a.mkv", tmp_path / "out", replace(FAST, **choice))


def test_an_always_covered_background_is_the_plain_median(tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mkv", [[LEFT]] * 5)
    everywhere = np.tile(np.array([80.0, 48.0, 400.0, 0.0]), (5, 1))
    plate = find_empty_plate(video, [(everywhere, np.zeros(5, bool))])
    shown = decode_picture(plate.data, what="plate")
    assert np.abs(shown[48, 42].astype(int) - WALL[48, 42]).max() > 30


def test_the_record_is_plain_json(everyone: Everyone) -> None:
    assert [one["face"] for one in json.loads(json.dumps(everyone.result.people))] == [1, 2]
