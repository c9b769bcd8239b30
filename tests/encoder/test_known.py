"""People enrolled once: their file, encodings against it, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sglat
from sglat.bitstream.reader import identity_beside, open_reader
from sglat.bundles.bundle import Bundle
from sglat.encoder import analysis as analysis_module
from sglat.encoder import known as known_module
from sglat.encoder.adapt import AdaptConfig
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.enrol import FEW_FRAMES, enrol
from sglat.encoder.gauss_newton import SolverConfig
from sglat.encoder.known import KnownProblemConfig, known_person
from sglat.encoder.sequential import SequentialConfig
from sglat.encoder.solve_motion import FastConfig, SweepConfig
from sglat.errors import FaceError, SglatError, UsageError
from sglat.marks.check import check
from sglat.media.pictures import encode_png
from tests.encoder.test_encode import Killed, draw_clip
from tests.encoder.test_stages import tiny
from tests.format_spec.support import reference
from tests.support.faces import draw_face
from tests.support.video import write_video

ENROL = EncodeConfig(tune_steps=4, identity_bytes=6_000, consent="mine")
FRAMES = 9
DEFAULTS = (
    (FastConfig, "solver", SolverConfig(iterations=1, fresh=0)),
    (SweepConfig, "chunk", 4),
    (AdaptConfig, "steps", 3),
)
"""Less work than the encoder's own, in more parts."""


@dataclass(frozen=True)
class World:
    """A bundle, a clip and an enrolled person."""

    bundle: Bundle
    clip: Path
    me: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = Path(tmp_path_factory.mktemp("known"))
    bundle, clip = tiny(folder / "tiny"), draw_clip(folder / "in.mp4", FRAMES, audio=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        enrol([clip], folder / "me.sglat", ENROL)
        enrol([clip], folder / "other.sglat", replace(ENROL, tune_steps=7, seed=1))
    return World(bundle, clip, folder / "me.sglat")


@pytest.fixture
def world(made: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: made.bundle)
    for config, name, value in DEFAULTS:
        monkeypatch.setitem(config.__init__.__kwdefaults__, name, value)  # type: ignore[misc]
    return made


def known(world: World, **choices: object) -> EncodeConfig:
    return EncodeConfig(identity=world.me, self_check=False, **choices)  # type: ignore[arg-type]


def test_an_enrolled_file_decodes_to_a_row_of_faces(world: World) -> None:
    with open_reader(world.me) as reader:
        count = reader.header.frame_count
        assert reader.header.settings["enrolled"] == f"{FRAMES} frames of 1 inputs"
    frames = list(sglat.decode(world.me, bundle=world.bundle))
    assert count is not None and 1 < count <= 16
    assert len(frames) == count


def test_the_reference_decoder_reads_an_enrolled_file(world: World) -> None:
    data = world.me.read_bytes()
    with open_reader(world.me) as reader:
        values = reader.read_motion().values
    file = reference.decode(data)
    found = np.concatenate([group.values for group in file.groups])
    np.testing.assert_array_equal(found, values)


def test_a_known_person_needs_motion_alone(world: World, tmp_path: Path) -> None:
    result = encode(world.clip, tmp_path / "out.sglat", known(world))
    assert {"invert", "tune", "detail"} & set(result.stage_seconds) == set()
    with open_reader(tmp_path / "out.sglat") as reader, open_reader(world.me) as other:
        reference = reader.identity_reference
        assert reader.identity is None and reference is not None
        assert (reference.sha256, reference.hint) == (other.identity_sha256, "me.sglat")
        assert len(reader.read_motion().values) == FRAMES
    assert (tmp_path / "out.sglat").stat().st_size < 0.4 * world.me.stat().st_size
    report = check(tmp_path / "out.sglat").provenance
    assert report is not None and report.record is not None
    assert report.record.consent == "mine"
    assert [(o.role, o.record and o.record.consent) for o in report.origins] == [("look", "mine")]


def pictures(path: Path, bundle: Bundle) -> np.ndarray:
    return np.stack([frame.picture for frame in sglat.decode(path, bundle=bundle)])


def test_an_embedded_identity_shows_the_same(world: World, tmp_path: Path) -> None:
    near = tmp_path / world.me.name
    near.write_bytes(world.me.read_bytes())
    encode(world.clip, tmp_path / "refers.sglat", known(world))
    encode(world.clip, tmp_path / "carries.sglat", known(world, embed=True))
    refers = pictures(tmp_path / "refers.sglat", world.bundle)
    np.testing.assert_array_equal(refers, pictures(tmp_path / "carries.sglat", world.bundle))


def test_another_file_of_the_hinted_name_is_not_used(world: World, tmp_path: Path) -> None:
    encode(world.clip, tmp_path / "out.sglat", known(world))
    with open_reader(tmp_path / "out.sglat") as reader:
        wanted = reader.identity_reference
    assert wanted is not None
    (tmp_path / "me.sglat").write_bytes(world.me.with_name("other.sglat").read_bytes())
    with pytest.raises(UsageError, match=f"me.sglat with hash {wanted.sha256.hex()[:16]}"):
        list(sglat.decode(tmp_path / "out.sglat", bundle=world.bundle))
    (tmp_path / "me.sglat").write_bytes(b"text")
    with pytest.raises(UsageError, match="--embed"):
        list(sglat.decode(tmp_path / "out.sglat", bundle=world.bundle))


@pytest.mark.parametrize("hint", ["../me.sglat", "/etc/me.sglat", "", ".", "..", "a/me.sglat"])
def test_a_hint_is_no_path(world: World, tmp_path: Path, hint: str) -> None:
    (tmp_path / "a").mkdir()
    for place in (tmp_path, tmp_path / "a"):
        (place / "me.sglat").write_bytes(world.me.read_bytes())
    with open_reader(world.me) as reader:
        sha256 = reader.identity_sha256
    assert sha256 is not None
    asked = known_module.IdentityReference(sha256=sha256, hint=hint)
    assert identity_beside(tmp_path / "a" / "out.sglat", asked) is None
    named = replace(asked, hint="me.sglat")
    assert identity_beside(tmp_path / "a" / "out.sglat", named) == tmp_path / "a" / "me.sglat"


def test_adapting_adds_a_layer(world: World, tmp_path: Path) -> None:
    encode(world.clip, tmp_path / "out.sglat", known(world, adapt=True))
    with open_reader(tmp_path / "out.sglat") as reader, open_reader(world.me) as other:
        assert reader.identity is not None and other.identity is not None
        count = len(other.identity.layers)
        assert len(reader.identity.layers) > count
        for mine, theirs in zip(
            reader.identity.layers[1:count], other.identity.layers[1:], strict=True
        ):
            assert type(mine) is type(theirs)
        np.testing.assert_array_equal(reader.identity.neutral, other.identity.neutral)


def test_motion_of_a_file_that_refers_moves_another_look(world: World, tmp_path: Path) -> None:
    (tmp_path / "me.sglat").write_bytes(world.me.read_bytes())
    encode(world.clip, tmp_path / "out.sglat", known(world))
    encode(world.clip, tmp_path / "whole.sglat", known(world, embed=True))
    other = world.me.with_name("other.sglat")
    for name in ("out", "whole"):
        sglat.swap(
            motion=tmp_path / f"{name}.sglat", identity=other, out=tmp_path / f"{name}2.sglat"
        )
    swapped = [pictures(tmp_path / f"{name}2.sglat", world.bundle) for name in ("out", "whole")]
    np.testing.assert_array_equal(*swapped)


PLACES = (("sweep", 4, False), ("expression", 1, False), ("tune", 2, True), ("sweep", 8, True))


@pytest.mark.parametrize(("phase", "done", "adapt"), PLACES)
def test_an_interrupted_encoding_ends_with_the_same_bytes(
    world: World, tmp_path: Path, phase: str, done: int, adapt: bool
) -> None:
    config = known(world, adapt=adapt)

    def kill(name: str, count: int, total: int) -> None:
        if name == phase and count >= done:
            raise Killed

    with pytest.raises(Killed):
        encode(world.clip, tmp_path / "cut.sglat", config, progress=kill)
    encode(world.clip, tmp_path / "cut.sglat", config)
    encode(world.clip, tmp_path / "new.sglat", config)
    assert (tmp_path / "cut.sglat").read_bytes() == (tmp_path / "new.sglat").read_bytes()


SETTINGS = (
    (SweepConfig, "solver", SequentialConfig(pull=0.9)),
    (KnownProblemConfig, "correction_noise", 5.0),
    (AdaptConfig, "steps", 2),
    (AdaptConfig, "extra_bytes", 2_000),
)


@pytest.mark.parametrize(("config", "name", "value"), SETTINGS)
def test_work_of_other_settings_is_not_continued(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: type,
    name: str,
    value: object,
) -> None:
    choices = known(world, adapt=config is AdaptConfig, keep_workfile=True)
    begin(world, tmp_path, choices)
    monkeypatch.setitem(config.__init__.__kwdefaults__, name, value)  # type: ignore[misc]
    assert goes_on_as_new(world, tmp_path, choices)


def test_work_of_another_known_person_is_not_continued(world: World, tmp_path: Path) -> None:
    choices = known(world, keep_workfile=True)
    begin(world, tmp_path, choices)
    other = replace(choices, identity=world.me.with_name("other.sglat"))
    assert goes_on_as_new(world, tmp_path, other)


def begin(world: World, folder: Path, choices: EncodeConfig) -> None:
    """Kill an encoding once its motion is solved."""

    def kill(name: str, count: int, total: int) -> None:
        if name == "expression":
            raise Killed

    with pytest.raises(Killed):
        encode(world.clip, folder / "cut.sglat", choices, progress=kill)


def goes_on_as_new(world: World, folder: Path, choices: EncodeConfig) -> bool:
    """Whether unfinished work, continued, gives the bytes of a new encoding."""
    encode(world.clip, folder / "cut.sglat", choices)
    encode(world.clip, folder / "new.sglat", choices)
    return (folder / "cut.sglat").read_bytes() == (folder / "new.sglat").read_bytes()


def wall() -> np.ndarray:
    return np.full((96, 128, 3), 60, np.uint8)


def picture(folder: Path) -> Path:
    path = folder / "me.png"
    path.write_bytes(encode_png(draw_face(wall(), 60, 48, 72)))
    return path


def test_one_picture_is_enough_and_its_limits_are_told(world: World, tmp_path: Path) -> None:
    result = enrol([picture(tmp_path)], tmp_path / "me.sglat", ENROL)
    assert result.frames == 1 and FEW_FRAMES in result.messages
    assert len(pictures(tmp_path / "me.sglat", world.bundle)) == 1


def test_clips_and_pictures_are_enrolled_together_and_continue(
    world: World, tmp_path: Path
) -> None:
    sources = [world.clip, picture(tmp_path)]
    whole = enrol(sources, tmp_path / "whole.sglat", ENROL)
    assert whole.frames == FRAMES + 1 and FEW_FRAMES not in whole.messages

    def kill(name: str, count: int, total: int) -> None:
        if name == "tune" and count >= 2:
            raise Killed

    with pytest.raises(Killed):
        enrol(sources, tmp_path / "cut.sglat", ENROL, progress=kill)
    enrol(sources, tmp_path / "cut.sglat", ENROL)
    assert (tmp_path / "cut.sglat").read_bytes() == (tmp_path / "whole.sglat").read_bytes()


def test_an_input_without_the_face_is_named(world: World, tmp_path: Path) -> None:
    empty = write_video(tmp_path / "wall.mp4", [wall()] * 3)
    with pytest.raises(FaceError, match=r"wall\.mp4 shows no face"):
        enrol([world.clip, empty], tmp_path / "me.sglat", ENROL)
    with pytest.raises(FaceError, match="no-face"):
        enrol([empty], tmp_path / "me.sglat", ENROL)
    assert not (tmp_path / "me.sglat").exists()


CONTRADICTIONS: tuple[tuple[dict[str, object], str], ...] = (
    ({"tune_steps": 9}, "--tune-steps"),
    ({"tune_frames": 9}, "--tune-frames"),
    ({"tuning": "none"}, "--tuning"),
    ({"tuning": "none", "adapt": True}, "--tuning"),
    ({"identity_bytes": 9_000}, "--identity-bytes"),
    ({"resolution": 16}, "--resolution"),
    ({"target": "inverted"}, "--target"),
    ({"similarity_plot": Path("plot.svg")}, "--similarity-plot"),
    ({"identity": None, "embed": True}, "--embed needs --identity"),
    ({"identity": None, "adapt": True}, "--adapt needs --identity"),
)


@pytest.mark.parametrize(("choices", "message"), CONTRADICTIONS)
def test_contradicting_choices_are_refused(
    world: World, tmp_path: Path, choices: dict[str, object], message: str
) -> None:
    config = replace(known(world), **choices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        encode(world.clip, tmp_path / "out.sglat", config)
    assert list(tmp_path.iterdir()) == []


def test_a_reference_is_no_known_person(world: World, tmp_path: Path) -> None:
    encode(world.clip, tmp_path / "out.sglat", known(world))
    with pytest.raises(UsageError, match=r"found a reference in .*out\.sglat"):
        known_person(tmp_path / "out.sglat", world.bundle)
    damaged = tmp_path / "damaged.sglat"
    damaged.write_bytes(world.me.read_bytes()[:300])
    with pytest.raises(SglatError, match=r"damaged\.sglat"):
        known_person(damaged, world.bundle)


def test_somebody_else_is_noticed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_module, "likeness", lambda *args: 0.12)
    result = encode(world.clip, tmp_path / "out.sglat", known(world))
    assert [line for line in result.messages if "somebody else" in line and "0.12" in line]


@pytest.mark.parametrize(("distance", "count"), [(0.001, 1), (0.25, 0)])
def test_changed_looks_are_noticed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distance: float, count: int
) -> None:
    monkeypatch.setattr(known_module, "_stored_distance", lambda settings: distance)
    monkeypatch.setattr(analysis_module, "picture_distance", lambda *args: 0.3)
    monkeypatch.setattr(analysis_module, "likeness", lambda *args: 0.9)
    result = encode(world.clip, tmp_path / "out.sglat", known(world))
    assert len([line for line in result.messages if "--adapt" in line]) == count


def test_typical_motions_stand_for_the_file(world: World) -> None:
    person = known_person(world.me, world.bundle)
    with open_reader(world.me) as reader:
        frames = reader.header.frame_count
    assert frames is not None and len(person.typical) <= frames + 1
    assert torch.equal(person.typical[0], person.person.neutral)
    assert person.distance is not None and 0 < person.distance < 1
