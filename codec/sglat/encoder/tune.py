"""Tuning inside the codec's own manifold: weights, ID latent and a few frames' numbers together.

Pivotal tuning (Roich et al. 2021, https://arxiv.org/abs/2106.05744) fits the generator to pivots
that the file cannot say. Here everything rendered during tuning is exactly what the file will say,
weight quantization included, so nothing is lost between tuning and decoding.

The ID latent goes first, alone with the frames' numbers: the inverter's is only near the person,
and what the latent says in 2 kB need not be said by weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.encoder.manifold import Manifold
from sglat.encoder.optim import FactorAdam
from sglat.encoder.schedule import warm_up_and_fall
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas
from sglat.networks.devices import fast_type

KEPT_EVERY: Final = 20
"""Steps between two looks at what the integers cost while they are tuned."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(pictures, targets, frame numbers) to one loss per frame, `[N]`."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How a person is tuned."""

    frames: int = 48
    """Frames that are tuned on, between them like all others of the clip."""
    steps: int = 1500
    latent_share: float = 0.15
    """Share of the steps in which the weights stay as they are."""
    batch: int = 4
    quantize_from: float = 0.6
    """Share of the steps after which weights are quantized in the forward pass."""
    steps_stay_from: float = 0.8
    """Share of the steps after which the quantizer's steps change only where they must."""
    rate_dense: float = 2.4e-2
    rate_factors: float = 7.5e-3
    """Of the factors' orthogonal steps (see `FactorAdam`)."""
    rate_latent_alone: float = 0.1
    """Of the ID latent while the weights stay as they are."""
    rate_latent: float = 1e-2
    rate_pose_degrees: float = 0.25
    rate_controls: float = 5e-2
    weight_prior: float = 1e-4
    """Pull of the controls towards their start values, per squared sigma."""
    cut_chance: float = 0.25
    """How often a step renders with only a prefix of the weight layers, so that prefixes work."""
    deltas: DeltaConfig = DeltaConfig()  # noqa: RUF009
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A tuned person."""

    manifold: Manifold
    deltas: WeightDeltas
    motion: Tensor
    """Motion of the tuning frames, `[K, 34]`."""


class Tuner:
    """Tunes a person step by step; its state can be stored and restored between any two steps."""

    def __init__(
        self,
        manifold: Manifold,
        targets: Tensor,
        motion: Tensor,
        loss: Loss,
        config: TuneConfig,
        *,
        budget_bits: float,
    ) -> None:
        """Start from the bundle's own weights.

        Args:
            manifold: the person before tuning; its ID latent is where tuning starts.
            targets: tuning frames in [-1, 1], `[K, 3, H, W]`; the first is the ID frame.
            motion: start values of their motion, `[K, 34]`.
            loss: what is minimised.
            config: steps and rates.
            budget_bits: most bits for the weight deltas.
        """
        self.manifold, self.targets, self.motion = manifold, targets, motion
        self.loss, self.config, self.budget_bits = loss, config, budget_bits
        self.dtype = fast_type(targets.device)  # float32 is how the motion is solved afterwards
        self.deltas = WeightDeltas(manifold.bundle.generator, config.deltas)
        self.ws = manifold.ws.clone().requires_grad_()
        self.offsets = torch.zeros_like(motion, requires_grad=True)
        self.units = torch.ones_like(motion[0])
        self.units[:2] = config.rate_pose_degrees / config.rate_controls  # one rate serves both
        self.optimizer = FactorAdam(
            _groups(self.deltas, self.ws, self.offsets, config), betas=(0.9, 0.95)
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.random = torch.Generator().manual_seed(config.seed)
        self.done = 0

    @property
    def numbers(self) -> Tensor:
        """Motion of the tuning frames as it stands, `[K, 34]`."""
        return self.motion + self.offsets * self.units

    def step(self) -> float:
        """Take one step and return its loss."""
        config = self.config
        alone = int(config.steps * config.latent_share)
        if self.done == alone:
            self._point_factors()
        quantized_from = max(alone, int(config.steps * config.quantize_from))
        if self.done == quantized_from:
            self.choose_steps()
        elif self.done > quantized_from and self.done % KEPT_EVERY == 0:
            is_late = self.done >= config.steps * config.steps_stay_from
            keep = self.deltas.keep_within if is_late else self.deltas.keep_near
            keep(self.budget_bits)
        self._set_rates(alone)
        chosen = torch.randperm(len(self.targets), generator=self.random)[: config.batch]
        stages = 0 if self.done < alone else None
        if self.done >= alone and float(torch.rand((), generator=self.random)) < config.cut_chance:
            stages = int(torch.randint(0, self.deltas.num_stages, (), generator=self.random))
        chosen = chosen.to(self.targets.device)
        numbers = self.numbers[chosen]
        weights = self.deltas.weights(stages=stages)
        pictures = self.manifold.render(numbers, ws=self.ws, weights=weights, dtype=self.dtype)
        values = self.loss(pictures, self.targets[chosen], chosen)
        prior = self.offsets[chosen, 2:].square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        (values.mean() + config.weight_prior * prior).backward()
        self.optimizer.step()
        self.done += 1
        return float(values.detach().mean())

    def _set_rates(self, alone: int) -> None:
        is_alone = self.done < alone
        if is_alone:
            factor = warm_up_and_fall(self.done, alone, 10)
        else:
            factor = warm_up_and_fall(self.done - alone, self.config.steps - alone, 20)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        if is_alone:  # the first group is the latent
            self.optimizer.param_groups[0]["lr"] = self.config.rate_latent_alone * factor

    def _point_factors(self) -> None:
        numbers, latent = self.numbers.detach(), self.ws.detach()
        manifold = Manifold(self.manifold.bundle, latent, self.manifold.neutral)
        self.deltas.start_from_gradients(
            _weight_gradients(manifold, self.deltas, self.targets, numbers, self.loss)
        )

    def choose_steps(self) -> None:
        """Choose the quantizer steps for the budget; from here on rendering is quantized."""
        numbers = self.numbers.detach()
        self.deltas.steps, self.deltas.sixteenths = {}, {}
        sensitivity = _sensitivity(self.manifold, self.deltas, self.ws, numbers, self.targets)
        self.deltas.set_steps(sensitivity, self.budget_bits)

    def result(self) -> Tuned:
        """Return the person as tuned so far."""
        fitted = Manifold(self.manifold.bundle, self.ws.detach().clone(), self.manifold.neutral)
        return Tuned(
            manifold=fitted, deltas=self.deltas.requires_grad_(False), motion=self.numbers.detach()
        )

    def _variables(self) -> dict[str, Tensor]:
        named = {f"delta:{key}": value for key, value in self.deltas.values.items()}
        return {"ws": self.ws, "offsets": self.offsets, **named}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return everything a resumed run needs: arrays by name, and facts in JSON."""
        arrays: dict[str, NDArray[Any]] = {"random": self.random.get_state().numpy()}
        for name, value in self._variables().items():
            arrays[f"value/{name}"] = value.detach().cpu().numpy()
            for moment, moments in self.optimizer.state.get(value, {}).items():
                arrays[f"{moment}/{name}"] = torch.as_tensor(moments).cpu().numpy()
        facts = {"steps": self.deltas.steps, "sixteenths": self.deltas.sixteenths}
        return arrays, {"done": self.done, **facts}

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.random.set_state(torch.from_numpy(arrays["random"]))
        for name, value in self._variables().items():
            value.copy_(torch.from_numpy(arrays[f"value/{name}"]))
            moments = {
                moment: torch.from_numpy(np.array(arrays[f"{moment}/{name}"]))
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"{moment}/{name}" in arrays
            }
            if moments:
                self.optimizer.state[value] = {
                    moment: stored if moment == "step" else stored.to(value.device)
                    for moment, stored in moments.items()  # Adam counts steps on the CPU
                }
        self.done, self.deltas.steps = int(facts["done"]), dict(facts["steps"])
        self.deltas.sixteenths = dict(facts["sixteenths"])


def tune(
    tuner: Tuner,
    *,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint: Callable[[Tuner], None] | None = None,
    checkpoint_every: int = 25,
) -> Tuned:
    """Run a tuner to its last step.

    Args:
        tuner: fresh or restored.
        progress: called with (step, steps, loss).
        checkpoint: called every few steps to store the tuner's state.
        checkpoint_every: steps between two calls.
    """
    steps = tuner.config.steps
    while tuner.done < steps:
        loss = tuner.step()
        if progress is not None:
            progress(tuner.done, steps, loss)
        if checkpoint is not None and tuner.done % checkpoint_every == 0:
            checkpoint(tuner)
    return tuner.result()


def _groups(
    deltas: WeightDeltas, ws: Tensor, offsets: Tensor, config: TuneConfig
) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = [{"params": [ws], "lr": config.rate_latent}]
    for key, value in deltas.values.items():
        is_factor = key.rsplit(":", 1)[1].startswith(("left", "right"))
        rate = config.rate_factors if is_factor else config.rate_dense
        groups.append({"params": [value], "lr": rate, "is_factor": is_factor})
    groups.append({"params": [offsets], "lr": config.rate_controls})
    return groups


def _weight_gradients(
    manifold: Manifold, deltas: WeightDeltas, targets: Tensor, motion: Tensor, loss: Loss
) -> dict[str, Tensor]:
    """Return the loss gradient of every convolution weight, summed over the frames."""
    weights = {name: deltas.base[name].clone().requires_grad_() for name in deltas.convs}
    for start in range(0, len(targets), 4):
        index = torch.arange(start, min(start + 4, len(targets)), device=targets.device)
        pictures = manifold.render(motion[index], weights=weights)
        loss(pictures, targets[index], index).sum().backward()
    gradients = {}
    for name, weight in weights.items():
        assert weight.grad is not None
        gradients[name] = weight.grad
    return gradients


def _sensitivity(
    manifold: Manifold,
    deltas: WeightDeltas,
    ws: Tensor,
    numbers: Tensor,
    targets: Tensor,
    probes: int = 6,
) -> dict[str, Tensor]:
    """Return the mean squared picture change per squared unit of each delta tensor's values, `[]`,
    or of those of each frequency, `[9]`.

    Random pixel signs r give E[(d(r·picture)/dv)²] = the sum of squared pixel derivatives.
    """
    generator = torch.Generator().manual_seed(1)
    totals = {key: torch.zeros(()) for key in deltas.values}
    for probe in range(probes):
        index = torch.tensor([probe % len(targets)], device=targets.device)
        weights = deltas.weights()
        pictures = manifold.render(numbers[index].detach(), ws=ws.detach(), weights=weights)
        signs = torch.randint(0, 2, pictures.shape, generator=generator).float() * 2 - 1
        deltas.zero_grad(set_to_none=True)
        (pictures * signs.to(pictures.device)).sum().backward()
        for key, value in deltas.values.items():
            assert value.grad is not None
            squares = value.grad.square()
            mean = squares.mean((1, 2)) if value.ndim == 3 and ":right" in key else squares.mean()
            totals[key] = totals[key] + mean.cpu() / probes
    deltas.zero_grad(set_to_none=True)
    return totals
