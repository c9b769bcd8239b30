"""The embedded face networks: their geometry, their interface, and their manners with bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sglat.errors import BundleError, FaceError
from sglat.networks.embedded_analysis import KINDS, ROLES, EmbeddedAnalysis
from sglat.networks.embedded_nets import (
    STRIDE,
    DetectorNetwork,
    DetectorOutput,
    IdentityNetwork,
    LandmarkNetwork,
    ParsingNetwork,
    boxes_of,
    candidates,
    folded_state,
)
from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.networks.embedded_views import (
    View,
    checked_picture,
    cut_view,
    letterbox,
    smoothed,
    to_picture,
    view_of_box,
    view_of_points,
)
from sglat.networks.faces import FaceBox, FaceLandmarks
from tests.support.tolerances import FOLDED_NORM_ATOL, VIEW_POINT_ATOL_PIXELS

BOX = FaceBox(left=40, top=30, right=110, bottom=120, score=1)


@pytest.fixture(scope="module")
def eyes() -> EmbeddedAnalysis:
    torch.manual_seed(0)
    return EmbeddedAnalysis(networks={role: kind() for role, kind in KINDS.items()})


def picture_with_dot(x: float, y: float, size: int = 200) -> np.ndarray:
    """A black picture with a soft white dot at pixel coordinates (pixel centres at halves)."""
    axis = np.arange(size) + 0.5
    dot = np.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * 3.0**2))
    return np.repeat((255 * dot).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_light(crop: torch.Tensor) -> np.ndarray:
    """Centre of brightness in crop units, (x, y)."""
    light = (crop[0, 0] + 1).double()
    axis = (torch.arange(light.shape[0]) + 0.5) / light.shape[0]
    total = light.sum()
    return np.array(
        (float((light.sum(0) * axis).sum() / total), float((light.sum(1) * axis).sum() / total))
    )


@pytest.mark.parametrize("roll", (0.0, 25.0, -40.0))
@pytest.mark.parametrize("side", (90.0, 400.0))
def test_a_point_seen_in_a_view_maps_back_to_its_place_in_the_picture(
    roll: float, side: float
) -> None:
    view = View(x=105.0, y=95.0, side=side, roll_degrees=roll)
    seen = centre_of_light(cut_view(picture_with_dot(120.0, 85.0), view, 128))
    found = to_picture(seen[None].astype(np.float32), view)[0]
    assert np.allclose(found, (120.0, 85.0), atol=VIEW_POINT_ATOL_PIXELS)


def test_a_face_turned_counter_clockwise_has_positive_roll_and_is_cut_level() -> None:
    points = np.random.default_rng(0).uniform(-30, 30, (478, 2)).astype(np.float32)
    points[[362, 385, 387, 263, 373, 380]] = (
        20,
        -10,
    )  # the person's left eye: right in the picture
    points[[33, 160, 158, 133, 153, 144]] = (-20, -10)
    angle = math.radians(20)  # counter-clockwise as seen: y points down
    turn = np.array(((math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))))
    view = view_of_points((points @ turn.T + 100).astype(np.float32))
    assert view.roll_degrees == pytest.approx(20, abs=1e-3)


def test_the_view_of_a_box_is_a_square_around_its_middle() -> None:
    view = view_of_box(BOX)
    assert (view.x, view.y, view.side) == (75.0, 75.0, pytest.approx(1.4 * 90))


@pytest.mark.parametrize(
    "network",
    (DetectorNetwork, LandmarkNetwork, ParsingNetwork, IdentityNetwork),
    ids=lambda n: n.__name__,
)
def test_folding_the_normalisation_changes_no_output(network: type[torch.nn.Module]) -> None:
    torch.manual_seed(1)
    trained = network(norm=True).to(memory_format=torch.channels_last)
    trained.train()
    with torch.no_grad():
        for _ in range(3):
            trained(torch.rand(4, 3, 128, 128) * 2 - 1)
    trained.eval()
    shipped = network(norm=False).eval()
    shipped.load_state_dict(folded_state(trained))
    crops = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(
            first_tensor(trained(crops)), first_tensor(shipped(crops)), atol=FOLDED_NORM_ATOL
        )


def first_tensor(output: object) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    return next(value for value in vars(output).values() if isinstance(value, torch.Tensor))


def test_a_cell_reaches_to_the_sides_of_its_box() -> None:
    reach = torch.full((1, 4, 3, 3), math.log(2.0))
    box = boxes_of(reach)[0, :, 1, 2]
    assert box.tolist() == pytest.approx([4.0, -4.0, 36.0, 28.0])  # centre (20, 12), two cells out


def test_of_two_overlapping_finds_the_better_one_stays() -> None:
    logits = torch.full((1, 8, 8), -9.0)
    logits[0, 2, 2], logits[0, 2, 4], logits[0, 7, 7] = 2.0, 1.0, 0.5
    reach = torch.full((1, 4, 8, 8), math.log(4.0))
    rows = candidates(DetectorOutput(score_logits=logits, reach=reach), threshold=0.5)[0]
    assert rows[:, 4].tolist() == pytest.approx(torch.tensor((2.0, 0.5)).sigmoid().tolist())


def test_letterbox_pads_to_the_coarsest_stride_and_tells_the_scale() -> None:
    small, scale = letterbox(np.zeros((300, 600, 3), np.uint8), 256, 32)
    assert (list(small.shape), scale) == ([1, 3, 128, 256], 256 / 600)


def test_detector_output_has_a_cell_every_eight_pixels() -> None:
    out = DetectorNetwork()(torch.zeros(1, 3, 64, 96))
    assert out.reach.shape == (1, 4, 64 // STRIDE, 96 // STRIDE)


@pytest.mark.parametrize("shape", ((90, 120), (90, 120, 1), (90, 120, 3), (90, 120, 4)))
def test_grey_and_alpha_pictures_become_rgb(shape: tuple[int, ...]) -> None:
    assert checked_picture(np.zeros(shape, np.uint8)).shape == (90, 120, 3)


@pytest.mark.parametrize(
    "picture",
    (
        np.zeros((20, 20, 3), np.float32),
        np.zeros((20, 20, 2), np.uint8),
        np.zeros((20,), np.uint8),
        np.zeros((0, 20, 3), np.uint8),
        "picture",
    ),
    ids=("float", "two channels", "one axis", "empty", "text"),
)
def test_what_is_no_picture_is_refused_in_one_line(eyes: EmbeddedAnalysis, picture: object) -> None:
    with pytest.raises(FaceError, match=r"^bad-picture: expected .* found [^\n]*$"):
        eyes.detect(picture)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", ((1, 1, 3), (15, 400, 3), (4, 4), (17, 16, 3), (33, 500, 4)))
def test_tiny_and_narrow_pictures_give_a_list(
    eyes: EmbeddedAnalysis, shape: tuple[int, ...]
) -> None:
    assert isinstance(eyes.detect(np.full(shape, 90, np.uint8)), list)


@pytest.mark.parametrize("right", (40.0, 39.0, math.nan, math.inf))
def test_an_empty_or_infinite_box_is_refused(eyes: EmbeddedAnalysis, right: float) -> None:
    box = FaceBox(left=40, top=30, right=right, bottom=120, score=1)
    with pytest.raises(FaceError, match="bad-box"):
        eyes.landmarks(np.zeros((150, 150, 3), np.uint8), box)


@pytest.mark.parametrize("shape", ((150, 150, 3), (5, 3), (60, 400, 4)))
def test_landmarks_of_any_picture_are_complete_and_finite(
    eyes: EmbeddedAnalysis, shape: tuple[int, ...]
) -> None:
    found = eyes.landmarks(np.full(shape, 60, np.uint8), BOX)
    again = eyes.landmarks(np.full(shape, 60, np.uint8), BOX, previous=found)
    assert found.points.shape == (478, 2)
    assert found.blendshapes.shape == (52,)
    assert np.isfinite(again.points).all()


@pytest.mark.parametrize("size", ((128, 128), (256, 256), (50, 70)))
def test_parsing_gives_probabilities_at_the_size_of_the_crop(
    eyes: EmbeddedAnalysis, size: tuple[int, int]
) -> None:
    found = eyes.parse(torch.zeros(2, 3, *size))
    assert found.shape == (2, 19, *size)
    assert torch.allclose(found.sum(1), torch.ones(2, *size), atol=1e-5)


def test_parsing_lets_gradients_through(eyes: EmbeddedAnalysis) -> None:
    crops = (torch.rand(1, 3, 128, 128) * 2 - 1).requires_grad_()
    eyes.parse(crops)[:, 11].mean().backward()
    assert crops.grad is not None and bool((crops.grad != 0).any())


def test_identity_vectors_have_length_one_and_let_gradients_through(eyes: EmbeddedAnalysis) -> None:
    crops = (torch.rand(2, 3, 160, 160) * 2 - 1).requires_grad_()
    vectors = eyes.embed(crops)
    assert torch.allclose(vectors.square().sum(1), torch.ones(2), atol=1e-5)
    vectors[0, 0].backward()
    assert crops.grad is not None and bool((crops.grad[0] != 0).any())


@pytest.mark.parametrize(
    "crops", (torch.zeros(3, 128, 128), torch.zeros(1, 1, 128, 128), torch.zeros(1, 3, 8, 8).byte())
)
def test_what_is_no_batch_of_crops_is_refused(eyes: EmbeddedAnalysis, crops: torch.Tensor) -> None:
    with pytest.raises(FaceError, match="bad-crops: expected"):
        eyes.embed(crops)


def test_perceptual_distance_is_zero_to_itself_symmetric_and_differentiable() -> None:
    torch.manual_seed(0)
    network = PerceptualNetwork()
    first, second = (torch.rand(2, 1, 3, 64, 64) * 2 - 1).unbind(0)
    first.requires_grad_()
    distance = network(first, second)
    distance.sum().backward()
    assert float(network(second, second).detach()) == 0
    assert torch.allclose(distance, network(second, first))
    assert first.grad is not None and bool(torch.isfinite(first.grad).all())
    assert float(distance.detach()) > 0


def landmarks_at(points: np.ndarray, openness: float = 0.3) -> FaceLandmarks:
    return FaceLandmarks(
        points=points.astype(np.float32), yaw_degrees=0.0, pitch_degrees=0.0, roll_degrees=0.0,
        eye_openness=(openness, openness), blendshapes=np.zeros(52, np.float32), score=1.0,
    )  # fmt: skip


def test_noise_of_a_still_face_is_damped_and_motion_is_kept() -> None:
    face = np.random.default_rng(1).uniform(0, 100, (478, 2))
    face[[362, 385, 387, 263, 373, 380]], face[[33, 160, 158, 133, 153, 144]] = (80, 40), (30, 40)
    still = landmarks_at(face)
    jitter = smoothed(landmarks_at(face + 0.1), still).points - still.points
    moving = smoothed(landmarks_at(face + 10), still).points - still.points
    assert float(np.abs(jitter).max()) < 0.05
    assert np.allclose(moving, 10, atol=1e-4)


def test_a_blink_is_not_smoothed_away() -> None:
    face = np.random.default_rng(1).uniform(0, 100, (478, 2))
    shut = smoothed(landmarks_at(face, openness=0.05), landmarks_at(face, openness=0.3))
    assert shut.eye_openness == pytest.approx((0.05, 0.05))


def test_a_missing_network_is_named() -> None:
    with pytest.raises(BundleError, match="missing-weights: face network detector"):
        EmbeddedAnalysis(networks={})


def test_a_network_of_the_wrong_class_is_named() -> None:
    networks: dict[str, torch.nn.Module] = {role: IdentityNetwork() for role in ROLES}
    with pytest.raises(BundleError, match="detector: expected DetectorNetwork, found IdentityNet"):
        EmbeddedAnalysis(networks=networks)


def test_every_role_has_a_network(eyes: EmbeddedAnalysis) -> None:
    assert tuple(eyes.networks) == ROLES
