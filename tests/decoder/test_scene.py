"""Scenes: everybody in their place, nobody twice, and files that belong together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sglat.bitstream.records import FRAME_HELD
from sglat.bitstream.scene import Scene, ScenePerson, describe_file, pack_scene, read_scene
from sglat.bitstream.scene_folder import change_looks
from sglat.bundles.bundle import Bundle
from sglat.cli.swap import main as swap_main
from sglat.decoder.backdrop import StillBackdrop
from sglat.decoder.composite import CompositeConfig, Compositor
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.decoder.scene import SceneDecoder
from sglat.errors import FormatError, UsageError
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import make_identity, write_file

SIZE = (160, 96)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


def entry(path: Path, face: int, order: int) -> ScenePerson:
    found = describe_file(path)
    return ScenePerson(
        file=found.file, bytes=found.bytes, sha256=found.sha256, face=face, order=order,
        first_frame=0, last_frame=9, shown_frames=10, centre=(80.0, 48.0), size=57.0,
    )  # fmt: skip


def write_scene(folder: Path, bundle: Bundle, **second: object) -> Path:
    """Write a scene of two people about the middle of the frame."""
    folder.mkdir()
    options = {"frames": 10, "source_size": SIZE}
    write_file(folder / "a.sglat", bundle, **options)
    write_file(folder / "b.sglat", bundle, seed=1, **options | second)
    people = (entry(folder / "a.sglat", 1, 2), entry(folder / "b.sglat", 2, 1))
    scene = Scene(source_sha256="0" * 64, width=SIZE[0], height=SIZE[1], frames=10, people=people)
    (folder / "scene.json").write_bytes(pack_scene(scene))
    return folder


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    return write_scene(tmp_path / "scene", bundle)


class Wall(StillBackdrop):
    """A grey wall without faces."""

    def __init__(self) -> None:
        super().__init__(np.full((SIZE[1], SIZE[0], 3), 60, np.uint8), has_face=False)


def frames(path: Path, bundle: Bundle) -> list[NDArray[np.uint8]]:
    with ExitStack() as stack:
        decoder = SceneDecoder(path, stack, bundle=bundle)
        return [frame.picture for frame in decoder.frames(Wall())]


def code_of(path: Path, bundle: Bundle) -> str:
    with pytest.raises(FormatError) as caught:
        frames(path, bundle)
    return caught.value.code


def test_all_frames_come_with_everybody(folder: Path, bundle: Bundle) -> None:
    shown = frames(folder / "scene.json", bundle)
    assert len(shown) == 10
    assert np.abs(shown[5].astype(int) - 60).max() > 20


def test_a_scene_is_written_as_a_video(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    from sglat.media.pictures import encode_png

    (tmp_path / "wall.png").write_bytes(encode_png(Wall().picture))
    with ExitStack() as stack:
        decoder = SceneDecoder(folder, stack, bundle=bundle)
        output = OutputConfig(path=tmp_path / "out.mp4", onto=tmp_path / "wall.png")
        result = write_decoded(decoder, output)
    assert (result.frames, result.width, result.height) == (10, *SIZE)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) == 10


def test_without_plate_or_video_the_user_is_told(folder: Path, bundle: Bundle) -> None:
    with ExitStack() as stack, pytest.raises(UsageError, match="--onto"):
        next(SceneDecoder(folder, stack, bundle=bundle).frames())


def test_a_person_who_is_not_there_is_not_pasted(folder: Path, bundle: Bundle) -> None:
    alone = write_scene(folder.parent / "alone", bundle)
    scene, _ = read_scene(alone)
    first = replace(scene.people[0], order=1)
    (alone / "scene.json").write_bytes(pack_scene(replace(scene, people=(first,))))
    with ExitStack() as stack:
        both = SceneDecoder(folder, stack, bundle=bundle)
        other = both._people[1]
        hold_all(other)
        shown = [frame.picture for frame in both.frames(Wall())]
    for one, two in zip(shown, frames(alone, bundle), strict=True):
        assert np.array_equal(one, two)


def hold_all(decoder) -> None:  # type: ignore[no-untyped-def]
    batches = decoder.batches

    def held() -> Iterator[object]:
        for rows in batches():
            yield replace(rows, flags=rows.flags | FRAME_HELD)

    decoder.batches = held


def test_faces_keep_their_colours_on_a_plate_of_other_colours(folder: Path, bundle: Bundle) -> None:
    wall = Wall()
    dark = frames(folder, bundle)
    wall.picture = wall.picture + np.uint8(120)
    with ExitStack() as stack:
        bright = [f.picture for f in SceneDecoder(folder, stack, bundle=bundle).frames(wall)]
    assert np.abs(dark[5][48, 80].astype(int) - bright[5][48, 80]).max() <= 2


def test_a_pixel_between_two_faces_belongs_to_the_nearer_one() -> None:
    frame = np.full((96, 160, 3), 128, np.uint8)
    compositor = Compositor()
    white, black = torch.ones(3, 32, 32), -torch.ones(3, 32, 32)
    mask = torch.stack([torch.ones(32, 32), torch.zeros(32, 32)])
    left, right = np.array([55.0, 48, 70, 0]), np.array([105.0, 48, 70, 0])
    first = compositor.paste(frame, white, mask, left, rivals=[(right, True)])
    both = compositor.paste(first.picture, black, mask, right, rivals=[(left, False)])
    assert both.picture[48, 70].tolist() == [255] * 3  # of both crops, nearer to the left one
    assert both.picture[48, 90].tolist() == [0] * 3
    assert 60 < both.picture[48, 80, 0] < 200


def test_no_backdrop_shows_through_the_seam_of_two_crops() -> None:
    frame = np.full((96, 160, 3), 0, np.uint8)
    compositor, white = Compositor(config=CompositeConfig(edge=0)), torch.ones(3, 32, 32)
    mask = torch.stack([torch.ones(32, 32), torch.zeros(32, 32)])
    left, right = np.array([60.0, 48, 70, 0]), np.array([100.0, 48, 70, 0])
    first = compositor.paste(frame, white, mask, left, rivals=[(right, True)])
    both = compositor.paste(first.picture, white, mask, right, rivals=[(left, False)])
    assert both.picture[30:66, 30:130].min() == 255


def test_a_missing_or_changed_file_is_refused(folder: Path, bundle: Bundle) -> None:
    data = (folder / "b.sglat").read_bytes()
    (folder / "b.sglat").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert code_of(folder, bundle) == "scene-changed"
    (folder / "b.sglat").unlink()
    assert code_of(folder, bundle) == "scene-missing"


@pytest.mark.parametrize(
    "second",
    [
        {"frames": 9},
        {"source_size": (64, 48)},
        {"source_size": None},
        {"pts": list(range(0, 20, 2))},
    ],
)
def test_files_of_other_videos_do_not_make_a_scene(
    tmp_path: Path, bundle: Bundle, second: dict[str, object]
) -> None:
    assert code_of(write_scene(tmp_path / "scene", bundle, **second), bundle) == "scene-mismatch"


def test_two_people_exchange_their_looks(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    scene = change_looks(folder / "scene.json", {1: 2, 2: 1}, tmp_path / "new")
    with ExitStack() as stack:
        before = SceneDecoder(folder, stack, bundle=bundle)._people
        after = SceneDecoder(tmp_path / "new", stack, bundle=bundle)._people
        for at in (0, 1):
            theirs, own = before[1 - at].reader, before[at].reader
            assert after[at].reader.identity_sha256 == theirs.identity_sha256
            new, old = after[at].reader.read_all(), own.read_all()
            assert values(new) == values(old)
    assert [person.centre for person in scene.people] == [(80.0, 48.0)] * 2
    assert len(frames(tmp_path / "new", bundle)) == 10


def values(groups) -> list[list[list[int]]]:  # type: ignore[no-untyped-def]
    return [group.motion.values.tolist() for group in groups]


def test_a_look_may_come_from_another_file(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    look = write_file(tmp_path / "me.sglat", bundle, identity=make_identity(bundle, seed=9))
    change_looks(folder, {1: look}, tmp_path / "new")
    assert (tmp_path / "new" / "b.sglat").read_bytes() == (folder / "b.sglat").read_bytes()
    assert (tmp_path / "new" / "a.sglat").read_bytes() != (folder / "a.sglat").read_bytes()


def test_ones_own_look_changes_nothing(folder: Path, tmp_path: Path) -> None:
    change_looks(folder, {1: 1}, tmp_path / "new")
    for name in ("a.sglat", "b.sglat", "scene.json"):
        assert (tmp_path / "new" / name).read_bytes() == (folder / name).read_bytes()


def test_another_video_than_the_scenes_is_named(
    folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "wall.png").write_bytes(b"another")
    with ExitStack() as stack:
        decoder = SceneDecoder(folder, stack, bundle=bundle)
        assert "not the video of the scene" in decoder.onto_notes(tmp_path / "wall.png")[0]


def test_a_face_that_the_scene_does_not_have_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1, 2.*got 3"):
        change_looks(folder, {1: 3}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_leaves_no_new_scene(folder: Path, tmp_path: Path) -> None:
    (folder / "b.sglat").write_bytes(b"")
    with pytest.raises(FormatError):
        change_looks(folder, {1: 2}, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"]


@pytest.mark.parametrize(
    "words", [["--look", "1"], ["--look", "x=2"], ["--look", "1=2", "--look", "1=3"],
              ["--look", "1=2", "--strip"], []],
)  # fmt: skip
def test_a_wrong_look_is_one_line(
    folder: Path, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = ["--motion", str(folder / "scene.json"), *words, str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["sgl-swap", *options])
    with pytest.raises(SystemExit) as caught:
        swap_main()
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
