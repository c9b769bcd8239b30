"""Encoding a known person's frames as they come: state, held frames, other people, one pass."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sglat.bitstream.reader import open_reader
from sglat.bitstream.records import FRAME_CUT, FRAME_HELD
from sglat.bundles.bundle import Bundle
from sglat.encoder import analysis as analysis_module
from sglat.encoder import stream as stream_module
from sglat.encoder.causal import CausalConfig, CausalEncoder, Encoded, encoded
from sglat.encoder.causal_state import restore, state_of
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.known import KnownPerson, known_person
from sglat.errors import FaceError, UsageError
from tests.encoder.test_encode import CONFIG, draw_clip, drawn_bundle
from tests.support.faces import draw_face
from tests.support.video import write_video

WALL = np.full((96, 128, 3), 60, np.uint8)
FACES = [draw_face(WALL, 60 + i % 3, 48, 72, shut=i % 5 == 4) for i in range(8)]
CAUSAL = CausalConfig(points=2)


class Estimator(nn.Module):
    """Controls from landmarks, of one layer."""

    def forward(self, points: Tensor, shapes: Tensor, pose: Tensor) -> Tensor:
        return 0.1 * torch.tanh(points[:, :32, 0] - points[:, :32, 1])


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, KnownPerson, Path]:
    """Return a bundle with an estimator, a person, and the person's file."""
    folder = Path(tmp_path_factory.mktemp("known"))
    bundle, clip = drawn_bundle(folder / "tiny"), draw_clip(folder / "in.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        encode(clip, folder / "me.sglat", CONFIG)
    has, module, part, estimator = bundle.has, bundle.module, bundle.part, Estimator()
    bundle.__dict__.update(
        has=lambda role: role == "estimator" or has(role),
        module=lambda role: estimator if role == "estimator" else module(role),
        part=lambda role: SimpleNamespace(sha256="e") if role == "estimator" else part(role),
    )
    return bundle, known_person(folder / "me.sglat", bundle), folder / "me.sglat"


@pytest.fixture
def encoder(known: tuple[Bundle, KnownPerson, Path]) -> CausalEncoder:
    return CausalEncoder(known[1], known[0], config=CAUSAL)


def numbers(frames: list[Encoded]) -> np.ndarray:
    return np.stack([np.concatenate([one.motion, one.placement]) for one in frames])


def test_a_restored_state_goes_on_to_the_same_numbers(
    known: tuple[Bundle, KnownPerson, Path], encoder: CausalEncoder
) -> None:
    whole = numbers([encoder.step(face) for face in [*FACES[:3], WALL, *FACES[3:]]])
    first = CausalEncoder(known[1], known[0], config=CAUSAL)
    for at, picture in enumerate([*FACES[:3], WALL, *FACES[3:]]):
        again = CausalEncoder(known[1], known[0], config=CAUSAL)
        if at:
            restore(again, *state_of(first))
        assert (numbers([again.step(picture)])[0] == whole[at]).all()
        first.step(picture)


def test_a_frame_without_a_face_repeats_the_last(encoder: CausalEncoder) -> None:
    before, held = encoder.step(FACES[0]), encoder.step(WALL)
    assert held.is_held and not before.is_held
    assert (held.motion == before.motion).all()
    assert (held.placement == before.placement).all()
    after = encoder.step(FACES[1])
    assert not after.is_held and after.is_cut


def test_the_motion_stays_while_the_face_is_half_out_of_the_frame(
    encoder: CausalEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = encoder.step(FACES[0])
    follow = encoder.follower.step

    def leaving(index: int, picture: np.ndarray) -> Any:
        found = follow(index, picture)
        encoder.follower.inside = 0.7
        return found

    monkeypatch.setattr(encoder.follower, "step", leaving)
    half = encoder.step(FACES[1])
    assert (half.motion == before.motion).all() and not half.is_held
    assert (half.placement != before.placement).any()


def test_the_crop_follows_the_face(encoder: CausalEncoder) -> None:
    left = [encoder.step(FACES[0]) for _ in range(2)]
    moved = draw_face(WALL, 66, 48, 72, shut=False)
    right = [encoder.step(moved) for _ in range(8)]
    assert right[-1].placement[0] - left[-1].placement[0] == pytest.approx(6, abs=1.5)


def test_somebody_else_is_held_and_the_person_found_again(
    encoder: CausalEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = iter([0.9, *[0.1] * 6, *[0.9] * 4])
    monkeypatch.setattr(encoder, "_likeness", lambda picture, found: next(alike))
    monkeypatch.setattr(encoder.follower, "_jumps", lambda found: True)  # each frame is a new face
    held = [encoder.step(face).is_held for face in FACES]
    assert held[0] is False and held[2:6] == [True] * 4 and held[7] is False


def test_a_first_face_that_is_unlike_is_taken_as_it_is(
    encoder: CausalEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_likeness", lambda picture, found: 0.1)
    assert not any(encoder.step(face).is_held for face in FACES)
    assert encoder.likeness == 0.1


def test_a_bundle_without_an_estimator_is_refused(tmp_path: Path, known: Any) -> None:
    with pytest.raises(UsageError, match="no-estimator"):
        CausalEncoder(known[1], drawn_bundle(tmp_path / "tiny"), config=CAUSAL)


@pytest.fixture
def live(known: tuple[Bundle, KnownPerson, Path], monkeypatch: pytest.MonkeyPatch) -> EncodeConfig:
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: known[0])
    monkeypatch.setattr(stream_module, "CHUNK", 4)
    return EncodeConfig(preset="live", identity=known[2])


def test_one_pass_writes_every_frame_and_refers_to_the_identity(
    live: EncodeConfig, known: tuple[Bundle, KnownPerson, Path], tmp_path: Path
) -> None:
    result = encode(draw_clip(tmp_path / "in.mp4"), tmp_path / "out.sglat", live)
    assert set(result.stage_seconds) == {"sweep", "pack"}
    with open_reader(tmp_path / "out.sglat") as reader, open_reader(known[2]) as other:
        assert reader.identity is None and reader.identity_reference is not None
        assert reader.identity_reference.sha256 == other.identity_sha256
        assert reader.read_motion().values.shape == (9, 34)


def test_one_pass_continues_to_the_same_bytes(
    live: EncodeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = draw_clip(tmp_path / "in.mp4")
    encode(clip, tmp_path / "whole.sglat", live)

    solve, done = CausalEncoder.solve, []

    def stop(self: CausalEncoder, prepared: Any) -> Encoded:
        done.append(prepared)
        if len(done) == 6:  # of the second chunk
            raise KeyboardInterrupt
        return solve(self, prepared)

    with monkeypatch.context() as patch:
        patch.setattr(CausalEncoder, "solve", stop)
        with pytest.raises(KeyboardInterrupt):
            encode(clip, tmp_path / "part.sglat", live)
    counted: list[int] = []
    encode(
        clip, tmp_path / "part.sglat", live,
        progress=lambda phase, at, total: counted.append(at) if phase == "sweep" else None,
    )  # fmt: skip
    assert counted[0] == 5  # four frames were stored
    assert (tmp_path / "part.sglat").read_bytes() == (tmp_path / "whole.sglat").read_bytes()


def test_one_pass_holds_black_frames_at_the_start(live: EncodeConfig, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "in.mp4", [np.zeros_like(WALL), *FACES])
    encode(clip, tmp_path / "out.sglat", live)
    with open_reader(tmp_path / "out.sglat") as reader:
        motion = reader.read_motion()
    assert motion.flags is not None
    assert motion.flags.tolist() == [FRAME_HELD, FRAME_CUT, *[0] * 7]
    assert (motion.values[0] == motion.values[1]).all()


def test_a_clip_without_a_face_is_refused(live: EncodeConfig, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "in.mp4", [WALL] * 3)
    with pytest.raises(FaceError, match="no-face"):
        encode(clip, tmp_path / "out.sglat", live)
    assert not (tmp_path / "out.sglat").exists()


class Counted:
    """Stands for the encoder: motion is the frame's number, and the calls are kept."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def solve(self, one: Any) -> str:
        self.calls.append(one.number)
        return f"solved {one.number}"

    def between(self, one: Any, share: float) -> str:
        return f"between {one.number} {share:.2f}"


def frames(kinds: str) -> list[tuple[int, Any]]:
    """Return prepared frames by letters: f follows, c begins a scene, h is held."""
    return [
        (i, SimpleNamespace(number=i, is_followed=kind == "f", crop=None if kind == "h" else kind))
        for i, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("kinds", "skipped", "solved"),
    [
        ("cfffffff", 1, [0, 1, 3, 5, 7]),
        ("cffffff", 1, [0, 1, 3, 5, 6]),
        ("cfffffff", 2, [0, 1, 4, 7]),
        ("cfffcfff", 1, [0, 1, 3, 4, 5, 7]),
        ("cffhcfff", 1, [0, 1, 2, 3, 4, 5, 7]),
        ("cfff", 0, [0, 1, 2, 3]),
    ],
)
def test_frames_that_follow_are_skipped_between_two_that_are_solved(
    kinds: str, skipped: int, solved: list[int]
) -> None:
    encoder: Any = Counted()
    found = list(encoded(encoder, frames(kinds), skipped))
    assert [number for number, _ in found] == list(range(len(kinds)))
    assert encoder.calls == solved
    left = [number for number, what in found if str(what).startswith("between")]
    assert sorted([*left, *solved]) == list(range(len(kinds)))


def test_a_skipped_frame_is_the_estimate_moved_by_the_shifts_beside_it(
    encoder: CausalEncoder,
) -> None:
    prepared = [encoder.prepare(face) for face in FACES[:3]]
    encoder.solve(prepared[0])
    encoder.solve(prepared[2])
    found = encoder.between(prepared[1], 0.25)
    first, last = list(encoder.solver.shifts)
    expected = prepared[1].estimate + 0.75 * first + 0.25 * last
    assert np.allclose(found.motion, expected.numpy(), atol=1e-6)
    assert float((last - first).abs().max()) > 1e-4
