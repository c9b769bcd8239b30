"""The paper's solver: its terms one by one, its rates, and known motion found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sglat.bitstream.channels import GROUPS
from sglat.bundles.bundle import Bundle
from sglat.bundles.controls import Controls
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder import analysis as analysis_module
from sglat.encoder import paper_pose as pose_module
from sglat.encoder import solve_motion as solve_module
from sglat.encoder.align import AlignConfig
from sglat.encoder.config import PRESETS, EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.invert import InvertConfig
from sglat.encoder.paper_losses import (
    GAZE,
    Before,
    TermWeights,
    WindowLoss,
    face_mask,
    norm_over,
    region_masks,
)
from sglat.encoder.paper_pose import PaperPoseConfig
from sglat.encoder.paper_solver import PaperClip, PaperConfig, PaperSolver
from sglat.encoder.person import TunedPerson
from sglat.encoder.registration import Registration, RegistrationConfig, side_within
from sglat.networks.face_points import BROWS, EYES, FACE_OVAL, JAW, LIPS
from sglat.networks.faces import PARSING_CLASSES
from tests.bundles.tiny import make_tiny_bundle
from tests.encoder.test_encode import draw_clip, drawn_bundle, see_drawn_faces

SIDE = 16
MOUTH, EYES_AND_BROWS = 0, 1


def face_points(frames: int) -> np.ndarray:
    """Landmarks whose lips and jaw fill the lower half of a crop, eyes and brows the upper."""
    points = np.full((frames, 478, 2), 0.5, np.float32)
    angle = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points[:, list(FACE_OVAL)] = 0.5 + 0.48 * np.stack([np.sin(angle), -np.cos(angle)], 1)
    for region, (x, y), (width, height) in (
        (JAW, (0.5, 0.8), (0.4, 0.15)), (LIPS, (0.5, 0.75), (0.2, 0.1)),
        (BROWS[:10], (0.7, 0.2), (0.15, 0.03)), (BROWS[10:], (0.3, 0.2), (0.15, 0.03)),
        (EYES[:16], (0.7, 0.35), (0.12, 0.06)), (EYES[16:32], (0.3, 0.35), (0.12, 0.06)),
    ):  # fmt: skip
        turn = np.linspace(0, 2 * np.pi, len(region), endpoint=False)
        ring = np.stack([width * np.cos(turn), height * np.sin(turn)], 1)
        points[:, list(region)] = np.array([x, y]) + ring
    return points


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return see_drawn_faces(make_tiny_bundle(tmp_path / "tiny"))


def pictures(seed: int, frames: int = 3) -> Tensor:
    return torch.rand(frames, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) - 0.5


def loss_of(bundle: Bundle, targets: Tensor, **options: Any) -> WindowLoss:
    regions = region_masks(face_points(len(targets)), SIDE)
    no = torch.zeros(len(targets), dtype=torch.bool)
    given = {"follows": ~no, "shut": no} | options
    return WindowLoss(bundle, TermWeights(), targets, regions, **given)


# --- masks ---


def test_the_mask_of_the_face_is_binary_and_holds_nose_and_skin() -> None:
    classes = torch.full((1, 19, 1, 19), 0.01)
    classes[0, :, 0] += 0.5 * torch.eye(19)  # pixel i is of class i
    inside = face_mask(classes)[0, 0, 0]
    wanted = {
        "skin", "left_brow", "right_brow", "left_eye", "right_eye", "eye_glasses", "nose",
        "mouth", "upper_lip", "lower_lip",
    }  # fmt: skip
    assert {PARSING_CLASSES[i] for i in range(19) if inside[i]} == wanted
    assert set(inside.tolist()) == {0.0, 1.0}


def test_groups_have_regions_of_their_own() -> None:
    mouth, eyes, gaze = region_masks(face_points(1), 64)[0]
    assert mouth[50, 32] and not mouth[:30].any()
    assert eyes[13, 19] and not eyes[36:].any()
    assert gaze[22, 19] and not gaze[13].any()
    assert float((gaze * eyes).sum()) > 0.9 * float(gaze.sum())


# --- terms ---


def test_a_norm_grows_with_the_difference_not_with_its_square() -> None:
    mask = torch.ones(1, 1, SIDE, SIDE)
    once, twice = (float(norm_over(k * torch.ones(1, 3, SIDE, SIDE), mask)) for k in (1, 2))
    assert (once, twice) == pytest.approx((1, 2))


def test_a_group_does_not_see_other_regions(bundle: Bundle) -> None:
    targets = pictures(1)
    other = targets.clone()
    other[..., :7, :] += 0.5  # brows and eyes
    mouth, eyes, _ = loss_of(bundle, targets).terms(other)
    assert float(mouth["l2"].max()) < 1e-5 < float(eyes["l2"].min())
    assert float(mouth["perceptual"].max()) < 1e-5 < float(eyes["perceptual"].min())


def test_gaze_has_no_perceptual_term(bundle: Bundle) -> None:
    terms = loss_of(bundle, pictures(1)).terms(pictures(2))
    assert ["perceptual" in group for group in terms] == [True, True, False]


def test_gaze_is_not_compared_while_an_eye_is_shut(bundle: Bundle) -> None:
    shut = torch.tensor([False, True, False])
    terms = loss_of(bundle, pictures(1), shut=shut).terms(pictures(2))
    for name in ("l2", "inter_frame"):
        assert float(terms[GAZE][name][1]) == 0 < float(terms[EYES_AND_BROWS][name][1])
        assert float(terms[GAZE][name][2]) > 0


def test_the_inter_frame_term_compares_changes_by_both_measures(bundle: Bundle) -> None:
    targets, shown = pictures(1), pictures(2)
    found = loss_of(bundle, targets).terms(shown)[MOUTH]["inter_frame"][1]
    region = region_masks(face_points(1), SIDE)[:, :1]
    wanted = 0.0
    for measure in (
        lambda a, b: norm_over(a - b, region),
        lambda a, b: bundle.perceptual.distance([a], [b], region),
    ):
        changes = [float(measure(p[1:2], p[:1])) for p in (targets, shown)]
        wanted += abs(changes[0] - changes[1])
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_the_inter_frame_term_crosses_the_border_of_a_window(bundle: Bundle) -> None:
    targets, shown = pictures(1, 4), pictures(2, 4)
    whole = loss_of(bundle, targets).terms(shown)
    anchor = bundle.faces.embed_for_loss(shown[:1])
    before = Before(rendered=shown[1:2], target=targets[1:2], anchor=anchor)
    late = loss_of(bundle, targets[2:], before=before).terms(shown[2:])
    for group, part in zip(whole, late, strict=True):
        assert torch.allclose(group["inter_frame"][2:], part["inter_frame"], atol=1e-6)
    follows = torch.tensor([False, True])  # nothing crosses a cut
    cut = loss_of(bundle, targets[2:], before=before, follows=follows).terms(shown[2:])
    assert float(cut[MOUTH]["inter_frame"][0]) == 0 < float(late[MOUTH]["inter_frame"][0])


def test_identity_is_compared_with_the_first_frame_of_the_clip(bundle: Bundle) -> None:
    targets, shown = pictures(1, 4), pictures(2, 4)
    embedded = bundle.faces.embed_for_loss(shown)
    before = Before(rendered=shown[1:2], target=targets[1:2], anchor=embedded[:1])
    late = loss_of(bundle, targets[2:], before=before).terms(shown[2:])[MOUTH]["identity"]
    assert torch.allclose(late, 1 - (embedded[2:] * embedded[:1]).sum(1), atol=1e-6)


# --- rates ---


class Painter:
    """A person whose first mouth control changes the eyes, the second the mouth."""

    def render(self, motion: Tensor) -> Tensor:
        shown = torch.zeros(len(motion), 3, SIDE, SIDE)
        shown[:, :, 4:7] += motion[:, 2, None, None, None]
        shown[:, :, 10:14] += motion[:, 3, None, None, None]
        return shown


def rates_of(bundle: Bundle, controls: Controls) -> Tensor:
    bundle.__dict__["controls"] = controls
    clip: Any = SimpleNamespace(points=face_points(1))
    person: Any = Painter()
    return PaperSolver(person, bundle, clip, PaperConfig()).rates(torch.zeros(1, 34))


def test_sensitivity_is_measured_over_the_region_of_the_group(bundle: Bundle) -> None:
    rates = rates_of(bundle, bundle.controls)
    assert float(rates[0]) == pytest.approx(1)  # no effect at the mouth
    assert float(rates[1]) == pytest.approx(float(np.exp(-1.5)))


def test_rates_are_in_raw_units_of_channels_and_in_sigmas_of_directions(bundle: Bundle) -> None:
    sigma, widths = (3.0,) * 32, bundle.controls.style_widths
    vectors = Controls(bundle.controls.matrix, style_widths=widths, sigma=sigma)
    pairs = [(index % 3, index // 3) for index in range(32)]
    channels = Controls.from_channels(pairs, widths, sigma=sigma)
    assert float(rates_of(bundle, vectors)[0]) == pytest.approx(3)
    assert float(rates_of(bundle, channels)[0]) == pytest.approx(1)


# --- known motion ---


def tiny_person(bundle: Bundle) -> TunedPerson:
    synthesizer = Synthesizer.of(bundle)
    ws = torch.randn(6, 16, generator=torch.Generator().manual_seed(3))
    identity: Any = None
    person = Person(ws=ws, neutral=torch.zeros(34))
    return TunedPerson(identity=identity, person=person, synthesizer=synthesizer, weights={})


def known_motion(frames: int, reach: float) -> Tensor:
    phase = 2 * torch.pi * torch.rand(34, generator=torch.Generator().manual_seed(0))
    turn = torch.linspace(0, 2 * torch.pi, frames + 1)[:-1, None]
    return reach * torch.sin(turn + phase)


def solver_of(bundle: Bundle, frames: int, config: PaperConfig) -> tuple[PaperSolver, Tensor]:
    """A solver of renderings of known motion, and that motion."""
    person, motion = tiny_person(bundle), known_motion(frames, 0.3)
    motion[:, :2] *= 10
    with torch.no_grad():
        targets = person.render(motion)
    nothing = np.zeros(frames, bool)
    clip = PaperClip(
        targets=lambda first, last: targets[first:last], points=face_points(frames),
        begins=nothing, shut=nothing,
    )  # fmt: skip
    return PaperSolver(person, bundle, clip, config), motion


def solved(
    solver: PaperSolver, motion: Tensor, done: int = 0, known: Tensor | None = None
) -> Tensor:
    start = torch.zeros_like(motion)
    start[:, :2] = motion[:, :2]
    before = start[:0] if known is None else known[:done]
    return torch.cat(list(solver.solve(start, before)))


class Patterns:
    """A person whose every control adds a picture of its own to the region of its group."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(4)
        regions = region_masks(face_points(1), SIDE)[0]
        places = {"mouth": 0, "chin": 0, "eyes": 1, "brows": 1, "gaze": 2}
        self.pictures = 0.3 * torch.stack(
            [
                torch.randn(3, SIDE, SIDE, generator=random) * regions[places[group]]
                for group in GROUPS
            ]
        )

    def render(self, motion: Tensor) -> Tensor:
        return torch.einsum("nk,kchw->nchw", motion[:, 2:], self.pictures)

    render_fast = render


def test_known_motion_is_found_again_from_its_rendering(bundle: Bundle) -> None:
    person: Any = Patterns()
    motion = known_motion(4, 1.5)
    targets, nothing = person.render(motion), np.zeros(4, bool)
    clip = PaperClip(
        targets=lambda first, last: targets[first:last], points=face_points(4),
        begins=nothing, shut=nothing,
    )  # fmt: skip
    solver = PaperSolver(person, bundle, clip, PaperConfig(window=2))
    found = solved(solver, motion)
    error = (found - motion)[:, 2:].abs() / 3.0  # of each control's range
    assert float(error.median()) <= 0.05


def test_the_loss_falls_in_every_window(bundle: Bundle) -> None:
    solver, motion = solver_of(bundle, 6, PaperConfig(rate=0.1, window=3, epochs=12, decay_every=2))
    solved(solver, motion)
    assert len(solver.history) == 2
    assert all(min(losses) < 0.8 * losses[0] for losses in solver.history)


def test_a_window_ends_at_its_least_loss(bundle: Bundle) -> None:
    solver, motion = solver_of(bundle, 2, PaperConfig(rate=3.0, window=2, epochs=3))
    found = solved(solver, motion)
    with torch.no_grad():
        reached = float(solver.loss_at(0, 2, [])(solver.person.render_fast(found)).sum())
    assert reached == pytest.approx(min(solver.history[0]), rel=1e-4)


def test_resumed_windows_are_the_same(bundle: Bundle) -> None:
    config = PaperConfig(rate=0.1, window=2, epochs=2)
    solver, motion = solver_of(bundle, 6, config)
    whole = solved(solver, motion)
    rest = solved(solver_of(bundle, 6, config)[0], motion, 4, whole)
    assert torch.equal(whole[4:], rest)


# --- pose ---


def test_yaw_and_pitch_are_found_by_descent_on_the_inverted_frames(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, motion = tiny_person(bundle), torch.zeros(3, 34)
    motion[:, :2] = torch.tensor([[4.0, -3.0], [5.0, -2.0], [6.0, 0.0]])
    with torch.no_grad():
        shown = person.render(motion)
    masks = torch.ones(3, 1, SIDE, SIDE)
    found = PaperPoseConfig(steps=50, decay_every=5).search(
        person, bundle, shown, masks, torch.zeros(3, 2)
    )
    assert float((found - motion[:, :2]).abs().max()) < 0.5


def test_the_pose_has_the_mask_of_each_frame() -> None:
    points = face_points(2)
    points[1] = points[1] * 0.5 + 0.25
    masks = pose_module._rigid_masks(points, torch.zeros(2, 3, 64, 64))
    assert float(masks[1].sum()) < 0.5 * float(masks[0].sum())


# --- the stages around ---


def test_registration_grows_with_the_crop() -> None:
    assert (side_within(128), side_within(1024)) == (128, 512)
    assert AlignConfig.within(1024).registration.side == 512


@pytest.mark.parametrize(("since", "limit"), [("key", 30.0), ("frame", 45.0)])
def test_a_slow_turn_counts_only_from_the_key_frame(since: Any, limit: float) -> None:
    track: Any = SimpleNamespace(pose=np.array([[0, 0, 0], [1.5, 0, 0], [3.0, 0, 0]]))
    register = Registration(track, None, RegistrationConfig(turn_since=since))
    register.key_index = 0
    assert register._limit(2) == limit


def test_the_paper_counts_turns_from_frame_to_frame() -> None:
    found = [
        AlignConfig.within(128, is_papers=one).registration.turn_since for one in (True, False)
    ]
    assert found == ["frame", "key"]


def test_latents_of_e4e_are_not_refined() -> None:
    part = SimpleNamespace(kind="e4e")
    run: Any = SimpleNamespace(
        bundle=SimpleNamespace(has=lambda role: True, part=lambda role: part)
    )
    assert analysis_module._refine_config(EncodeConfig(), run).steps == 0
    tune = analysis_module._tune_config(EncodeConfig(), 64_000, run)
    assert (tune.latent_share, tune.rate_latent) == (0, 0)
    part.kind = "embedded_inverter"
    assert analysis_module._refine_config(EncodeConfig(), run).steps == 200


def test_the_inversion_is_the_target_of_the_papers_solver_only() -> None:
    assert EncodeConfig().matched == "frame"
    assert EncodeConfig(solver="paper").matched == "inverted"
    assert EncodeConfig(solver="paper", target="frame").matched == "frame"


def test_an_encoding_inverts_every_frame_starts_at_zero_and_is_not_smoothed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = drawn_bundle(tmp_path / "tiny")
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
    monkeypatch.setitem(PRESETS, "default", replace(PRESETS["default"], inverted_frames=2))
    monkeypatch.setitem(PaperConfig.__init__.__kwdefaults__, "epochs", 2)
    monkeypatch.setitem(PaperPoseConfig.__init__.__kwdefaults__, "steps", 2)
    seen: dict[str, Any] = {}
    invert, smoothed, solve = InvertConfig.run, solve_module.smoothed, PaperSolver.solve

    def inverting(self: InvertConfig, *args: Any) -> Any:
        seen["inverted"] = invert(self, *args)
        return seen["inverted"]

    def smoothing(motion: Any, strength: float, cuts: Any) -> Any:
        seen["strength"] = strength
        return smoothed(motion, strength, cuts)

    def solving(self: PaperSolver, start: Tensor, done: Tensor) -> Any:
        seen["offsets"] = start[:, 2:] - self.person.person.neutral[2:]
        return solve(self, start, done)

    monkeypatch.setattr(InvertConfig, "run", inverting)
    monkeypatch.setattr(solve_module, "smoothed", smoothing)
    monkeypatch.setattr(PaperSolver, "solve", solving)
    config = EncodeConfig(tune_steps=2, identity_bytes=6_000, self_check=False, solver="paper")
    encode(draw_clip(tmp_path / "in.mp4", 5, audio=None), tmp_path / "out.sglat", config)
    assert len(seen["inverted"].frames) == 5
    assert seen["strength"] == 0
    assert float(seen["offsets"].abs().max()) == 0
    assert len(GROUPS) == seen["offsets"].shape[1]
