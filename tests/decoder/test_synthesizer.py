"""The synthesizer: identity and motion to styles and pictures, the same on every path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sglat.bitstream.records import (
    DenseDelta,
    GainDelta,
    LowRankDelta,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
)
from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Person, Renderer, Synthesizer, retarget
from sglat.errors import BundleMismatchError
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import make_identity
from tests.support.tolerances import FAST_RENDER_ATOL, GENERATOR_ATOL


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def synthesizer(bundle: Bundle) -> Synthesizer:
    return Synthesizer.of(bundle)


@pytest.fixture(scope="module")
def person(bundle: Bundle, synthesizer: Synthesizer) -> Person:
    return synthesizer.person(make_identity(bundle))


def motion(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 34, generator=torch.Generator().manual_seed(0))


def test_its_id_is_the_decoder_id_with_and_without_deltas(
    bundle: Bundle, synthesizer: Synthesizer
) -> None:
    assert synthesizer.id == synthesizer.tuned([]).id == bundle.decoder_id


def test_neutral_motion_shows_the_id_latent(synthesizer: Synthesizer, person: Person) -> None:
    plain = synthesizer.generator.styles(person.ws[None])
    styles = synthesizer.styles(person, person.neutral[None])
    for found, expected in zip(styles, plain, strict=True):
        assert torch.allclose(found, expected, atol=GENERATOR_ATOL)


def test_a_control_moves_its_own_direction(synthesizer: Synthesizer, person: Person) -> None:
    values = person.neutral[None].repeat(2, 1)
    values[1, 2 + 5] += 0.5
    flat = torch.cat(synthesizer.styles(person, values), dim=1)
    expected = 0.5 * synthesizer.controls.matrix[5]
    assert torch.allclose(flat[1] - flat[0], expected, atol=GENERATOR_ATOL)


def test_gradients_reach_every_number(synthesizer: Synthesizer, person: Person) -> None:
    values = motion(2).requires_grad_()
    synthesizer.render(person, values).square().sum().backward()
    assert values.grad is not None
    assert bool((values.grad.abs() > 0).all())


def test_weights_given_per_call_render_as_if_they_were_its_own(
    synthesizer: Synthesizer, person: Person
) -> None:
    values = integers(np.ones(synthesizer.generator.layers[0].bias.shape))
    tuned = synthesizer.tuned([DenseDelta(name="layers.0.bias", values=values)])
    weights = {"layers.0.bias": tuned.generator.layers[0].bias.detach()}
    with torch.no_grad():
        found = synthesizer.render(person, motion(), weights=weights)
        assert torch.equal(found, tuned.render(person, motion()))
        assert not torch.equal(found, synthesizer.render(person, motion()))


def test_the_fast_path_shows_the_same_pictures(synthesizer: Synthesizer, person: Person) -> None:
    renderer = Renderer(synthesizer, person)
    slow = synthesizer.render(person, motion()).clamp(-1, 1)
    assert torch.allclose(renderer.render(motion()), slow, atol=FAST_RENDER_ATOL)


def test_the_flow_of_the_persons_own_pose_is_solved_once(
    synthesizer: Synthesizer, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(synthesizer, person)
    expected = renderer.render(motion())

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("solved again")

    monkeypatch.setattr(synthesizer.pose_flow, "pose_free", refuse)
    assert torch.equal(renderer.render(motion()), expected)


def test_a_frame_does_not_depend_on_its_batch(synthesizer: Synthesizer, person: Person) -> None:
    renderer = Renderer(synthesizer, person)
    together, alone = renderer.render(motion()), renderer.render(motion()[1:2])
    assert torch.allclose(together[1:2], alone, atol=FAST_RENDER_ATOL)


def test_relative_transfer_moves_the_driver_neutral_onto_the_puppet() -> None:
    puppet, driver = torch.full((34,), 2.0), torch.full((34,), 5.0)
    found = retarget(driver[None], puppet=puppet, driver=driver, transfer="relative")
    assert torch.equal(found, puppet[None])


def test_absolute_transfer_keeps_the_values() -> None:
    values = motion()
    neutral = torch.ones(34)
    found = retarget(values, puppet=neutral, driver=-neutral, transfer="absolute")
    assert torch.equal(found, values)


def test_ones_own_motion_is_kept() -> None:
    values = motion()
    assert torch.equal(
        retarget(values, puppet=torch.ones(34), driver=None, transfer="relative"), values
    )


def integers(values: object, step: float = 0.5) -> QuantizedTensor:
    return QuantizedTensor(values=np.asarray(values, np.int32), step=step)


def test_deltas_apply_in_order_to_a_copy(synthesizer: Synthesizer) -> None:
    weight = synthesizer.generator.layers[0].weight
    before = weight.detach().clone()
    shape = tuple(weight.shape)
    left, right = np.ones((shape[0], 1)), np.ones((1, weight[0].numel()))
    deltas = [
        LowRankDelta(
            name="layers.0.weight", shape=shape, left=integers(left), right=integers(right)
        ),
        GainDelta(name="layers.0.weight", shape=shape, gains=integers(np.ones(shape[0]))),
        SparseDelta(
            name="layers.0.weight", shape=shape, indices=np.array([0, 7]), values=integers([2, -2])
        ),
        DenseDelta(name="layers.0.bias", values=integers(np.ones(shape[0]))),
    ]
    tuned = synthesizer.tuned(deltas).generator
    expected = (before + 0.25) * 1.5
    expected.view(-1)[0] += 1.0
    expected.view(-1)[7] -= 1.0
    assert torch.allclose(tuned.layers[0].weight, expected)
    assert torch.allclose(tuned.layers[0].bias, synthesizer.generator.layers[0].bias + 0.5)
    assert torch.equal(weight, before)


def test_a_spectral_delta_changes_a_weight_by_waves(synthesizer: Synthesizer) -> None:
    weight = synthesizer.generator.layers[0].weight
    before = weight.detach().clone()
    outputs, inputs = before.shape[:2]
    spectrum = np.zeros((9, 1, inputs), np.int32)
    spectrum[1] = 4  # one swing from left to right: 1/√3 times (1, 0, -1) / √2
    delta = SpectralDelta(
        name="layers.0.weight", shape=(outputs, inputs, 3, 3), left=integers(np.ones((outputs, 1))),
        right=spectrum, base_step=0.25, sixteenths=np.full(9, 32, np.int32),
    )  # fmt: skip
    tuned = synthesizer.tuned([delta]).generator
    row = torch.tensor([1.0, 0.0, -1.0]) * (0.5 * 4 * 0.5 / 6**0.5)
    expected = before + row.expand(outputs, inputs, 3, 3)
    torch.testing.assert_close(tuned.layers[0].weight.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "delta",
    [
        DenseDelta(name="layers.99.weight", values=integers([1])),
        DenseDelta(name="layers.0.bias", values=integers([1, 2])),
        DenseDelta(name="__class__", values=integers([1])),
    ],
    ids=["unknown name", "wrong shape", "no weight"],
)
def test_a_delta_that_does_not_fit_is_refused(synthesizer: Synthesizer, delta: DenseDelta) -> None:
    with pytest.raises(BundleMismatchError, match="bad-delta"):
        synthesizer.tuned([delta])


def test_a_delta_that_overflows_is_refused(synthesizer: Synthesizer) -> None:
    huge = integers(np.full(12, (1 << 20) - 1), step=3e38)
    with pytest.raises(BundleMismatchError, match="not finite"):
        synthesizer.tuned([DenseDelta(name="layers.0.bias", values=huge)])


def test_a_latent_of_another_generator_is_refused(bundle: Bundle, synthesizer: Synthesizer) -> None:
    identity = make_identity(bundle)
    other = integers(np.zeros((3, 5)))
    object.__setattr__(identity.layers[0], "latent", other)
    with pytest.raises(BundleMismatchError, match="wrong-latent"):
        synthesizer.person(identity)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_workers_side_by_side_show_the_same_pictures(
    synthesizer: Synthesizer, person: Person, count: int
) -> None:
    alone = Renderer(synthesizer, person, workers=1)
    shared = Renderer(synthesizer, person, workers=3)
    with torch.inference_mode():
        pictures = shared.render(motion(count))
        assert torch.allclose(pictures, alone.render(motion(count)), atol=FAST_RENDER_ATOL)


def test_workers_leave_the_callers_threads_alone(synthesizer: Synthesizer, person: Person) -> None:
    before = torch.get_num_threads()
    Renderer(synthesizer, person, workers=3)
    assert torch.get_num_threads() == before
