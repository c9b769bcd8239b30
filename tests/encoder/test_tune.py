"""Weight deltas and tuning: what is tuned is what the decoder applies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sglat.bitstream.records import SpectralDelta
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder.person import person_within, quantized_person
from sglat.encoder.tune import TuneConfig, Tuner, tune
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas, delta_budget, ranks_within
from sglat.encoder.write import identity_size
from sglat.errors import UsageError
from tests.bundles.tiny import make_tiny_bundle
from tests.support.tolerances import GENERATOR_ATOL

SHORT = TuneConfig(steps=20, batch=2, deltas=DeltaConfig(ranks=(1, 2)))


def squared_error(pictures: Tensor, targets: Tensor, index: Tensor) -> Tensor:
    """A loss without networks."""
    return (pictures - targets).square().mean((1, 2, 3))


@pytest.fixture
def tuner(tmp_path: Path) -> Tuner:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    random = torch.Generator().manual_seed(3)
    synthesizer = Synthesizer.of(bundle)
    person = Person(ws=torch.randn(6, 16, generator=random), neutral=torch.zeros(34))
    motion = 0.1 * torch.randn(3, 34, generator=random)
    with torch.no_grad():
        targets = synthesizer.render(person, motion) + 0.5
    return Tuner(synthesizer, person, targets, motion, squared_error, SHORT, budget_bits=8_000)


def test_tuning_lowers_the_loss(tuner: Tuner) -> None:
    losses: list[float] = []
    tune(tuner, progress=lambda done, total, loss: losses.append(loss))
    assert min(losses[-5:]) < 0.8 * losses[0]


def test_the_decoder_applies_exactly_the_tuned_weights(tuner: Tuner) -> None:
    tuned = tune(tuner)
    person = quantized_person(tuner.synthesizer, tuned, id_frame=0)
    decoder = tuner.synthesizer.tuned(person.identity.weight_deltas())
    decoded = dict(decoder.generator.named_parameters())
    for name, weight in person.weights.items():
        torch.testing.assert_close(decoded[name].detach(), weight, atol=GENERATOR_ATOL, rtol=0)


def test_a_prefix_of_the_layers_renders_alike(tuner: Tuner) -> None:
    tuned = tune(tuner)
    person = quantized_person(tuner.synthesizer, tuned, id_frame=0, delta_layers=2)
    decoder = tuner.synthesizer.tuned(person.identity.weight_deltas())
    decoded = dict(decoder.generator.named_parameters())
    wanted = tuned.deltas.weights(layers=2)
    name = tuned.deltas.convs[0]
    torch.testing.assert_close(decoded[name].detach(), wanted[name], atol=GENERATOR_ATOL, rtol=0)


def test_a_restored_tuner_ends_with_the_same_person(tuner: Tuner, tmp_path: Path) -> None:
    for _ in range(14):  # beyond the step at which quantization begins
        tuner.step()
    person = Person(ws=torch.zeros(6, 16), neutral=tuner.neutral)
    arrays, facts = tuner.state()
    arrays = {name: np.array(value) for name, value in arrays.items()}
    whole = tune(tuner)
    other = Tuner(
        tuner.synthesizer, person, tuner.targets, tuner.motion, squared_error, SHORT,
        budget_bits=8_000,
    )  # fmt: skip
    other.restore(arrays, facts)
    resumed = tune(other)
    assert torch.equal(whole.motion, resumed.motion)
    assert torch.equal(whole.person.ws, resumed.person.ws)


def test_steps_meet_the_budget(tuner: Tuner) -> None:
    for _ in range(5):
        tuner.step()
    tuner.choose_steps()
    assert tuner.deltas.bits() <= 8_000


def test_steps_follow_what_the_integers_come_to_cost(tuner: Tuner) -> None:
    for _ in range(5):
        tuner.step()
    tuner.choose_steps()
    deltas = tuner.deltas
    chosen = dict(deltas.steps)
    budget = deltas.coded_bits()
    with torch.no_grad():
        for value in deltas.values.values():
            value.mul_(1.2)
    assert deltas.coded_bits() > budget
    deltas.keep_within(budget)
    assert 0.9 * budget < deltas.coded_bits() <= budget
    growth = {round(deltas.steps[key] / chosen[key], 4) for key in chosen}
    assert len(growth) == 1 and growth.pop() > 1.05
    kept = dict(deltas.steps)
    deltas.keep_within(2 * budget)
    assert deltas.steps == kept


def test_steps_come_near_the_budget_from_both_sides(tuner: Tuner) -> None:
    for _ in range(5):
        tuner.step()
    tuner.choose_steps()
    deltas = tuner.deltas
    wanted = deltas.coded_bits()
    for start in (0.8, 1.25):
        deltas.scale_steps(start)
        before = deltas.coded_bits()
        assert abs(before / wanted - 1) > 0.02
        for _ in range(40):
            deltas.keep_near(wanted)
        assert 0.95 * wanted < deltas.coded_bits() <= wanted


def test_a_budget_below_empty_layers_ends(tuner: Tuner) -> None:
    for _ in range(5):
        tuner.step()
    tuner.choose_steps()
    chosen = dict(tuner.deltas.steps)
    tuner.deltas.keep_within(1)  # bits: less than the layers' heads alone
    growth = [tuner.deltas.steps[key] / chosen[key] for key in chosen]
    assert min(growth) > 1 and max(growth) < 1.5


def test_an_identity_fits_the_bytes_it_was_given(tuner: Tuner) -> None:
    tuned = tune(tuner)
    person = person_within(tuner.synthesizer, tuned, id_frame=0, size_bytes=900)
    assert identity_size(person.identity) <= 900


def test_too_few_bytes_are_refused_with_the_least_that_would_do(tuner: Tuner) -> None:
    tuned = tune(tuner)
    with pytest.raises(UsageError, match="the latent alone needs"):
        person_within(tuner.synthesizer, tuned, id_frame=0, size_bytes=20)


def test_left_factors_start_along_the_gradient(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    deltas = WeightDeltas(bundle.generator, DeltaConfig(ranks=(1,)))
    direction = torch.zeros(12)
    direction[3] = 1.0
    gradients = {
        name: deltas.base[name].new_zeros(deltas.base[name].shape) for name in deltas.convs
    }
    gradients[deltas.convs[0]][3] = 1.0
    deltas.start_from_gradients(gradients)
    left = deltas.values[f"{deltas.convs[0]}:left1".replace(".", "/")]
    torch.testing.assert_close(left[:, 0].abs(), direction)


def test_a_layer_narrower_than_the_ranks_takes_what_it_has_room_for(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    deltas = WeightDeltas(bundle.generator, DeltaConfig(ranks=(200, 200)))
    random = torch.Generator().manual_seed(2)
    gradients = {
        name: torch.randn(deltas.base[name].shape, generator=random) for name in deltas.convs
    }
    deltas.start_from_gradients(gradients)
    first, second = (
        deltas.values[f"{deltas.convs[0]}:left{number}".replace(".", "/")] for number in (1, 2)
    )
    width = len(deltas.base[deltas.convs[0]])
    assert first.shape == second.shape == (width, width)
    assert torch.allclose(first.T @ first, torch.eye(width), atol=1e-4)
    assert float(second.detach().abs().max()) == 0


def test_half_a_direction_is_not_sent(tuner: Tuner) -> None:
    tune(tuner)
    deltas = tuner.deltas
    left, right = (f"{deltas.convs[0]}:{half}1".replace(".", "/") for half in ("left", "right"))
    with torch.no_grad():
        deltas.values[left][:, 0] = 5 * deltas.steps[left]
        deltas.values[right][:, 0] = 0
    before = deltas.weights()[deltas.convs[0]]
    assert float(deltas.integers(left)[:, 0].abs().max()) == 0
    sent = [d for layer in deltas.to_layers() for d in layer.deltas if d.name == deltas.convs[0]]
    change = next(d for d in sent if isinstance(d, SpectralDelta))
    assert not change.left.values[:, 0].any()
    with torch.no_grad():
        deltas.values[left][:, 0] = 0
    torch.testing.assert_close(deltas.weights()[deltas.convs[0]], before)


def test_frequencies_that_pictures_see_less_take_longer_steps(tuner: Tuner) -> None:
    tune(tuner)
    key = f"{tuner.deltas.convs[-1]}:right1".replace(".", "/")
    shares = tuner.deltas.sixteenths[key]
    assert len(shares) == 9 and min(shares) == 16
    assert shares[8] > shares[0]  # the finest detail of a filter, and its mean


def test_more_bytes_buy_more_directions() -> None:
    counts = [sum(ranks_within(size)) for size in (8_000, 24_000, 64_000, 200_000, 600_000)]
    assert counts == sorted(set(counts))
    assert 0 < delta_budget(8_000) < 8_000


def test_the_latent_is_tuned_alone_first(tuner: Tuner) -> None:
    start = tuner.ws.detach().clone()
    for _ in range(int(SHORT.steps * SHORT.latent_share)):
        tuner.step()
    assert not torch.equal(tuner.ws.detach(), start)
    assert all(not bool(value.any()) for value in tuner.deltas.values.values())
    tuner.step()
    assert any(bool(value.any()) for value in tuner.deltas.values.values())
