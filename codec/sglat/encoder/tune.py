"""Joint tuning of a generator's weights, the ID latent and the motion of a few frames.

Pivotal tuning (Roich et al. 2021, https://arxiv.org/abs/2106.05744) fits the generator to pivots
that a file cannot represent. Here every rendering during tuning is one that the file can represent,
quantized weights included, so tuning and decoding show the same pictures.

The ID latent is tuned first, with the frames' motion alone: it takes 2 kB, so what it can represent
need not be paid for in weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.encoder.align import Alignment
from sglat.encoder.losses import LossConfig, TargetLoss
from sglat.encoder.motion_bank import ROLE, MotionBankConfig, MotionRegularizer
from sglat.encoder.optim import FactorAdam, warm_up_and_fall
from sglat.encoder.stages import Stage, Task
from sglat.encoder.start_motion import StartMotion
from sglat.encoder.visible import Visible
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas, delta_budget
from sglat.networks.devices import fast_type
from sglat.networks.face_points import feature_weights

SIZED_EVERY: Final = 20
"""Steps between two measurements of the coded size while quantized weights are tuned."""
CHECKPOINT_EVERY: Final = 25
"""Steps between two checkpoints."""


def frames_with_gradient(resolution: int) -> int:
    """Return how many frames are rendered with gradients at once; a frame of 1024 px takes 3 GB."""
    return 4 if resolution <= 256 else max(1, 1024 // resolution)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(pictures, targets, frame numbers) to one loss per frame, `[N]`."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Stage["TuneResult"]):
    """How a person is tuned."""

    name = "tune"
    networks = ("synthesizer", "perceptual", "faces")

    steps: int = 1500
    latent_share: float = 0.15
    """Share of the steps in which the weights stay as they are."""
    batch: int = 4
    quantize_from: float = 0.6
    """Share of the steps after which weights are quantized in the forward pass."""
    steps_stay_from: float = 0.8
    """Share of the steps after which quantizer steps only grow, and only where the budget is
    exceeded."""
    rate_dense: float = 2.4e-2
    rate_factors: float = 7.5e-3
    """Of the factors' orthogonalised updates (see `FactorAdam`)."""
    rate_latent_alone: float = 0.1
    """Of the ID latent while the weights stay as they are."""
    rate_latent: float = 1e-2
    rate_pose_degrees: float = 0.25
    rate_controls: float = 5e-2
    weight_prior: float = 1e-4
    """Pull of the controls towards their start values, per squared sigma."""
    cut_chance: float = 0.25
    """Probability of rendering with only the first weight layers, so that a file may be cut off."""
    deltas: DeltaConfig = DeltaConfig()  # noqa: RUF009
    loss: LossConfig = LossConfig()  # noqa: RUF009
    identity_bytes: int = 64_000
    """Most bytes of the identity in the file, latent included."""
    motion_bank: MotionBankConfig = MotionBankConfig()  # noqa: RUF009
    seed: int = 0

    def roles(self) -> tuple[str, ...]:
        """See `Stage`; the bank is taken only where its weight is not 0."""
        return (*self.networks, ROLE, "landmarks") if self.motion_bank.weight else self.networks

    def run(
        self,
        task: Task,
        aligned: Alignment,
        visible: Visible,
        start: StartMotion,
        ws: Tensor,
        chosen: list[int],
    ) -> TuneResult:
        """Tune a person on some frames, the first of which is the ID frame, with refined latent
        `ws` `[L, D]`; continues from the last checkpoint."""
        store, bundle = task.open(), task.bundle
        targets = aligned.crops.tensor(chosen)
        targets = targets.to(bundle.device, memory_format=torch.channels_last)
        points = torch.from_numpy(start.points[chosen]).to(bundle.device)
        masks = visible.masks(chosen, bundle.resolution)
        masks = None if masks is None else masks.to(bundle.device)
        weights = feature_weights(points, targets.shape[-1], self.loss.feature_weight)
        embed = bundle.faces.embed_for_loss
        tuner = Tuner(
            task.synthesizer,
            Person(ws=ws, neutral=start.motion[chosen[0]]),
            targets,
            start.motion[chosen],
            TargetLoss(targets, weights, bundle.perceptual, embed, self.loss, masks),
            self,
            budget_bits=8 * delta_budget(self.identity_bytes),
            regularizer=MotionRegularizer.of(
                bundle, task.synthesizer, start.motion, id_frame=chosen[0], points=points[0],
                config=self.motion_bank,
            ),
        )  # fmt: skip
        stored = store.result() if store.is_done else store.load_checkpoint()
        if stored is not None:
            tuner.restore(*stored)
        if not store.is_done:
            tune(
                tuner,
                progress=lambda done, steps, loss: task.tell(done, steps),
                checkpoint=lambda tuner: store.save_checkpoint(*tuner.state()),
            )
            store.finish(*tuner.state())
        return tuner.result()


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """Result of tuning: values not yet rounded, and the quantizer steps to round them with."""

    person: Person
    deltas: WeightDeltas
    motion: Tensor
    """Motion of the tuning frames, `[K, 34]`."""


class Tuner:
    """Tunes a person step by step; its state can be stored and restored between any two steps."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        person: Person,
        targets: Tensor,
        motion: Tensor,
        loss: Loss,
        config: TuneConfig,
        *,
        budget_bits: float,
        regularizer: MotionRegularizer | None = None,
    ) -> None:
        """Start from the bundle's own weights, on the synthesizer's device.

        The person gives the start of the ID latent, `motion` `[K, 34]` the start values of the
        tuning frames `targets` `[K, 3, H, W]` in [-1, 1], the first of which is the ID frame. The
        weight deltas take at most `budget_bits`; the regularizer adds the cost of motions that the
        clip lacks.
        """
        self.regularizer = regularizer
        self.synthesizer, self.targets = synthesizer, targets
        self.loss, self.config, self.budget_bits = loss, config, budget_bits
        self.motion = motion.to(synthesizer.device)
        person = person.to(synthesizer.device)
        self.neutral = person.neutral
        self.ws = person.ws.clone().requires_grad_()
        self.dtype = fast_type(synthesizer.device)
        self.deltas = WeightDeltas(synthesizer.generator, config.deltas)
        self.offsets = torch.zeros_like(self.motion, requires_grad=True)
        self.units = torch.ones_like(self.motion[0])
        self.units[:2] = config.rate_pose_degrees / config.rate_controls  # one rate serves both
        self.optimizer = FactorAdam(
            _groups(self.deltas, self.ws, self.offsets, config), betas=(0.9, 0.95)
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.random = torch.Generator().manual_seed(config.seed)
        self.done = 0

    @property
    def tuned_motion(self) -> Tensor:
        """Current motion of the tuning frames, `[K, 34]`."""
        return self.motion + self.offsets * self.units

    def _render(
        self,
        motion: Tensor,
        weights: Mapping[str, Tensor],
        *,
        dtype: torch.dtype = torch.float32,
        is_fixed: bool = False,
    ) -> Tensor:
        """Return pictures of the current latent; `is_fixed` leaves out its gradient."""
        person = Person(ws=self.ws.detach() if is_fixed else self.ws, neutral=self.neutral)
        return self.synthesizer.render(person, motion, weights=weights, dtype=dtype)

    def step(self) -> float:
        """Take one step and return its loss."""
        config = self.config
        alone = int(config.steps * config.latent_share)
        if self.done == alone:
            self._point_factors()
        quantized_from = max(alone, int(config.steps * config.quantize_from))
        if self.done == quantized_from:
            self.choose_steps()
        elif self.done > quantized_from and self.done % SIZED_EVERY == 0:
            is_late = self.done >= config.steps * config.steps_stay_from
            keep = self.deltas.keep_within if is_late else self.deltas.keep_near
            keep(self.budget_bits)
        self._set_rates(alone)
        chosen = torch.randperm(len(self.targets), generator=self.random)[: config.batch]
        layers = 0 if self.done < alone else None
        if self.done >= alone and float(torch.rand((), generator=self.random)) < config.cut_chance:
            layers = int(torch.randint(0, self.deltas.num_layers, (), generator=self.random))
        chosen = chosen.to(self.targets.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = chosen.split(frames_with_gradient(self.targets.shape[-1]))
        losses = [self._descend(part, layers, len(part) / len(chosen)) for part in parts]
        self.optimizer.step()
        self.done += 1
        return float(torch.cat(losses).mean())

    def _descend(self, chosen: Tensor, layers: int | None, share: float) -> Tensor:
        """Add the gradients of some frames' loss, a share of the step's; return the losses."""
        config = self.config
        weights = self.deltas.weights(layers=layers)
        pictures = self._render(self.tuned_motion[chosen], weights, dtype=self.dtype)
        values = self.loss(pictures, self.targets[chosen], chosen)
        prior = self.offsets[chosen, 2:].square().mean()
        cost = values.mean() + config.weight_prior * prior
        if self.regularizer is not None and weights and self.regularizer.is_due(self.done):
            cost = cost + self.regularizer(self.done, self.ws, weights, self.dtype)
        (cost if share == 1 else cost * share).backward()
        return values.detach()

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
        """Start the left factors along the gradients of the loss, summed over the frames."""
        weights = {
            name: self.deltas.base[name].clone().requires_grad_() for name in self.deltas.convs
        }
        motion = self.tuned_motion.detach()
        most = frames_with_gradient(self.targets.shape[-1])
        for index in torch.arange(len(motion), device=motion.device).split(most):
            pictures = self._render(motion[index], weights, is_fixed=True)
            self.loss(pictures, self.targets[index], index).sum().backward()
        gradients = {}
        for name, weight in weights.items():
            assert weight.grad is not None
            gradients[name] = weight.grad
        self.deltas.start_from_gradients(gradients)

    def choose_steps(self) -> None:
        """Choose the quantizer steps for the budget; from here on rendering is quantized."""
        self.deltas.steps, self.deltas.sixteenths = {}, {}
        self.deltas.set_steps(self._sensitivity(), self.budget_bits)

    def _sensitivity(self) -> dict[str, Tensor]:
        motion, deltas = self.tuned_motion.detach(), self.deltas

        def render(probe: int) -> Tensor:
            row = torch.tensor([probe % len(motion)], device=motion.device)
            return self._render(motion[row], deltas.weights(), is_fixed=True)

        return picture_sensitivity(deltas, render)

    def result(self) -> TuneResult:
        """Return the person as tuned so far."""
        return TuneResult(
            person=Person(ws=self.ws.detach().clone(), neutral=self.neutral),
            deltas=self.deltas.requires_grad_(False),
            motion=self.tuned_motion.detach(),
        )

    def _variables(self) -> dict[str, Tensor]:
        named = {f"delta:{key}": value for key, value in self.deltas.values.items()}
        return {"ws": self.ws, "offsets": self.offsets, **named}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return what `restore` needs: arrays by name, and facts in JSON."""
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


def picture_sensitivity(
    deltas: WeightDeltas, render: Callable[[int], Tensor], probes: int = 6
) -> dict[str, Tensor]:
    """Return the mean squared picture change per squared unit of each delta tensor's values, `[]`,
    or of those of each frequency, `[9]`.

    Random pixel signs r give E[(d(r·picture)/dv)²] = the sum of squared pixel derivatives;
    `render` gives the picture of a probe with the deltas applied, `[1, 3, H, W]`.
    """
    random = torch.Generator().manual_seed(1)
    totals = {key: torch.zeros(()) for key in deltas.values}
    for probe in range(probes):
        pictures = render(probe)
        signs = torch.randint(0, 2, pictures.shape, generator=random).float() * 2 - 1
        deltas.zero_grad(set_to_none=True)
        (pictures * signs.to(pictures.device)).sum().backward()
        for key, mean in deltas.squared_gradients().items():
            totals[key] = totals[key] + mean / probes
    deltas.zero_grad(set_to_none=True)
    return totals


def tune(
    tuner: Tuner,
    *,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint: Callable[[Tuner], None] | None = None,
) -> TuneResult:
    """Run a fresh or restored tuner to its last step. Progress is told step, steps and loss;
    `checkpoint` stores the tuner's state every `CHECKPOINT_EVERY` steps."""
    steps = tuner.config.steps
    while tuner.done < steps:
        loss = tuner.step()
        if progress is not None:
            progress(tuner.done, steps, loss)
        if checkpoint is not None and tuner.done % CHECKPOINT_EVERY == 0:
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
