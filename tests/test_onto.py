"""Which placement a face is pasted by, and what is said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sglat import api
from sglat import onto as onto_module
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.decoder.paint import FaceTrack, read_track
from sglat.encoder.align import place_face
from sglat.errors import FaceError, MissingExtraError, UsageError
from sglat.media.reader import Clip, VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import drawn_bundle
from tests.support.faces import draw_face
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

FRAMES = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def onto(tmp_path: Path) -> Path:
    return write_video(tmp_path / "onto.mp4", [moving_square(i) for i in range(FRAMES)])


Choose = Callable[..., tuple[FaceTrack | None, list[str]]]


@pytest.fixture
def choose(tmp_path: Path, bundle: Bundle, onto: Path) -> Choose:
    def run(
        found: FaceTrack | Exception,
        wanted: str = "auto",
        *,
        face: int | None = None,
        config: DecodeConfig | None = None,
        asked: list[object] | None = None,
        **changes: object,
    ) -> tuple[FaceTrack | None, list[str]]:
        """Choose for a small file; following a face gives `found`, and `asked` notes of what."""
        source = write_file(tmp_path / "in.sglat", bundle, frames=FRAMES, **changes)

        def place(clip: Clip, *_: object, face: int, **__: object) -> FaceTrack:
            if asked is not None:
                asked[:] = [clip.start_seconds, clip.end_seconds, face]
            if isinstance(found, Exception):
                raise found
            return found

        with pytest.MonkeyPatch.context() as patch, source.open("rb") as file:
            patch.setattr("sglat.encoder.align.place_face", place)
            decoder = Decoder(file, bundle=bundle, config=config)
            return onto_module.choose_track(decoder, source, onto, wanted, face=face)

    return run


def there(placement: list[float]) -> FaceTrack:
    return FaceTrack(
        seconds=np.arange(FRAMES) / 25,
        placement=np.tile(np.array(placement), (FRAMES, 1)),
        is_held=np.zeros(FRAMES, bool),
        is_cut=np.zeros(FRAMES, bool),
        size=(64, 48),
    )


def test_a_face_elsewhere_is_followed_and_said(choose: Choose, onto: Path) -> None:
    far = there([900.0, 700, 12, 0])
    track, notes = choose(far)
    assert track is far
    assert notes == [f"--onto: placed where the face of {onto} is; the motion is of another video"]


def test_another_face_framed_nearly_alike_is_followed(
    choose: Choose, tmp_path: Path, bundle: Bundle
) -> None:
    own = read_track(write_file(tmp_path / "own.sglat", bundle, frames=FRAMES))
    near = replace(own, placement=own.placement + np.array([0.06 * own.placement[0, 2], 0, 0, 0]))
    assert choose(near)[0] is near


def test_the_own_placement_is_kept_where_a_face_lies_there(
    choose: Choose, tmp_path: Path, bundle: Bundle
) -> None:
    own = read_track(write_file(tmp_path / "own.sglat", bundle, frames=FRAMES))
    assert choose(own) == (None, [])


def test_the_video_that_a_file_was_made_of_is_not_searched(choose: Choose, onto: Path) -> None:
    digest = hashlib.sha256(onto.read_bytes()).digest()
    never = AssertionError("searched")
    assert choose(never, source_sha256=digest) == (None, [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FaceError("no-face", "none"), "no face was found in"),
        (MissingExtraError("h5py", extra="encode"), "pip install sglat[encode]"),
    ],
)
def test_what_cannot_be_placed_is_pasted_as_stored_and_said(
    choose: Choose, error: Exception, reason: str
) -> None:
    track, notes = choose(error, source_size=(128, 96))
    assert track is None
    assert len(notes) == 1
    assert reason in notes[0] and "--track" in notes[0] and "scaled to" in notes[0]


def test_a_face_may_be_chosen_even_in_the_video_that_a_file_was_made_of(
    choose: Choose, onto: Path
) -> None:
    digest, asked = hashlib.sha256(onto.read_bytes()).digest(), []
    found = there([30.0, 20, 12, 0])
    track, notes = choose(found, face=2, asked=asked, source_sha256=digest)
    assert track is found and asked[2] == 2
    assert notes == [f"--onto: placed where face 2 of {onto} is"]


def test_a_face_that_is_not_there_is_an_error(choose: Choose) -> None:
    with pytest.raises(FaceError, match="no-such-face"):
        choose(FaceError("no-such-face", "face 3 was asked for"), face=3)


def test_only_the_range_that_is_decoded_is_searched(choose: Choose) -> None:
    asked: list[object] = []
    choose(there([900.0, 700, 12, 0]), config=DecodeConfig(end_seconds=0.08), asked=asked)
    assert asked == [0, Fraction(2, 25), 1]


def test_a_video_that_ends_before_the_range_is_searched_whole(choose: Choose) -> None:
    asked: list[object] = []
    choose(there([900.0, 700, 12, 0]), config=DecodeConfig(start_seconds=2.0), asked=asked)
    assert asked == [0, None, 1]


def test_a_range_of_a_video_is_tracked_by_the_clock_of_the_whole(tmp_path: Path) -> None:
    wall = np.full((96, 128, 3), 60, np.uint8)
    faces = [draw_face(wall, 50 + i, 48, 66) for i in range(12)]
    path = write_video(tmp_path / "in.mkv", faces, codec="ffv1", pixel_format="bgra")
    bundle = drawn_bundle(tmp_path / "tiny")
    whole = place_face(Clip(path=path), bundle)
    part = place_face(Clip(path=path, start_seconds=Fraction(1, 5)), bundle)
    assert part.seconds == pytest.approx(whole.seconds[5:])
    assert part.placement[-1, 0] == pytest.approx(whole.placement[-1, 0], abs=0.5)


def test_own_takes_the_placement_of_the_file(choose: Choose) -> None:
    assert choose(AssertionError("searched"), "own") == (None, [])


def test_a_file_of_the_video_gives_its_track(
    choose: Choose, tmp_path: Path, bundle: Bundle
) -> None:
    other = write_file(tmp_path / "other.sglat", bundle, frames=FRAMES)
    track, notes = choose(AssertionError("searched"), str(other))
    assert track is not None and notes == []


def test_a_missing_track_is_our_error(choose: Choose, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="input-missing"):
        choose(AssertionError("searched"), str(tmp_path / "none.sglat"))


def test_a_video_with_sound_is_one_call(tmp_path: Path, bundle: Bundle) -> None:
    source = write_file(tmp_path / "in.sglat", bundle, frames=FRAMES)
    stages = set()
    result = api.decode_video(
        source, tmp_path / "out.mp4", bundle=bundle, progress=lambda stage, *_: stages.add(stage)
    )
    assert (result.frames, stages) == (FRAMES, {"decode"})
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) == FRAMES
