"""Pivotal tuning as published, and what of it a file can carry: METHOD.md, "Pivotal tuning"."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.decoder.synthesizer import Person, Synthesizer, synthesize
from sglat.encoder.align import Alignment
from sglat.encoder.invert import Inversion, Selection
from sglat.encoder.losses import shown_through
from sglat.encoder.stages import Stage, Task
from sglat.encoder.start_motion import StartMotion
from sglat.encoder.tune import CHECKPOINT_EVERY, TuneResult, picture_sensitivity
from sglat.encoder.visible import Visible
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas, delta_budget
from sglat.networks.perceptual import PerceptualDistance
from sglat.networks.stylegan2 import Generator

Frame = Callable[[int], tuple[Tensor, Tensor, Tensor | None]]
"""Number of a pivot to its latent `[1, L, D]`, picture `[1, 3, H, W]` and mask `[1, 1, H, W]`."""


@dataclass(frozen=True, kw_only=True)
class PtiConfig(Stage[TuneResult]):
    """Constants of Roich et al. 2021, https://arxiv.org/abs/2106.05744, as their code has them."""

    name = "pti"
    phase = "tune"
    networks = ("synthesizer", "perceptual")

    steps: int = 350
    """At most; each takes one frame."""
    rate: float = 3e-4
    weight_l2: float = 1.0
    weight_perceptual: float = 1.0
    enough: float = 0.06
    """Mean LPIPS of a round of all frames below which tuning ends."""
    has_affine: bool = False
    """Also tune the affine layers, which a file does not carry."""
    deltas: DeltaConfig = DeltaConfig()  # noqa: RUF009
    identity_bytes: int = 64_000
    """Most bytes of the identity in the file, latent included."""
    seed: int = 0

    def run(
        self,
        task: Task,
        aligned: Alignment,
        visible: Visible,
        start: StartMotion,
        inversion: Inversion,
        selection: Selection,
        chosen: list[int],
    ) -> TuneResult:
        """Tune the generator on all inverted frames, then keep what the file can carry; continues
        from the last checkpoint."""
        store, bundle = task.open(), task.bundle
        pivots = torch.from_numpy(inversion.ws)

        def frame(row: int) -> tuple[Tensor, Tensor, Tensor | None]:
            rows = [int(inversion.frames[row])]
            mask = visible.masks(rows, bundle.resolution)
            picture = aligned.crops.tensor(rows).to(bundle.device)
            mask = None if mask is None else mask.to(bundle.device)
            return pivots[row][None].to(bundle.device), picture, mask

        tuner = PivotTuner(bundle.generator, bundle.perceptual, len(pivots), frame, self)
        stored = store.result() if store.is_done else store.load_checkpoint()
        if stored is not None:
            tuner.restore(*stored)
        while not store.is_done and not tuner.is_done:
            tuner.step()
            task.tell(tuner.done, self.steps)
            if tuner.done % CHECKPOINT_EVERY == 0:
                store.save_checkpoint(*tuner.state())
        if not store.is_done:
            store.finish(*tuner.state())
        person = Person(ws=pivots[selection.row], neutral=start.motion[chosen[0]])
        return TuneResult(
            person=person.to(bundle.device),
            deltas=carried(task.synthesizer, tuner.weights(), pivots.to(bundle.device), self),
            motion=start.motion[chosen].to(bundle.device),
        )


class PivotTuner:
    """Tunes a generator's weights around fixed latents; its state can be stored between steps."""

    def __init__(
        self,
        generator: Generator,
        perceptual: PerceptualDistance,
        count: int,
        frame: Frame,
        config: PtiConfig,
    ) -> None:
        """Start from a copy of the generator; `count` pivots are taken in turn, in an order that
        each round draws anew."""
        self.perceptual, self.count, self.frame, self.config = perceptual, count, frame, config
        self.generator = copy.deepcopy(generator).requires_grad_()
        if not config.has_affine:
            for name, parameter in self.generator.named_parameters():
                parameter.requires_grad_(".affine." not in name)
        self.named = {n: p for n, p in self.generator.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.Adam(self.named.values(), lr=config.rate)
        self.distances: list[float] = []
        """LPIPS of each step's frame."""

    @property
    def done(self) -> int:
        """Steps taken."""
        return len(self.distances)

    @property
    def is_done(self) -> bool:
        """Whether a whole round was close enough, or all steps are taken."""
        if self.done >= self.config.steps:
            return True
        at_border = self.done > 0 and self.done % self.count == 0
        return at_border and float(np.mean(self.distances[-self.count :])) <= self.config.enough

    def step(self) -> None:
        """Take one step on one frame."""
        turn, place = divmod(self.done, self.count)
        random = torch.Generator().manual_seed(self.config.seed * 100_003 + turn)
        ws, target, mask = self.frame(int(torch.randperm(self.count, generator=random)[place]))
        picture = self.generator(ws)
        if mask is not None:
            picture = shown_through(picture, target, mask)
        network = self.perceptual
        with torch.no_grad():
            wanted = network.features(target)
        distance = network.distance(network.features(picture), wanted).mean()
        loss = self.config.weight_l2 * (picture - target).square().mean()
        loss = loss + self.config.weight_perceptual * distance
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.distances.append(float(distance.detach()))

    def weights(self) -> dict[str, Tensor]:
        """Return the tuned weights by name."""
        return {name: value.detach() for name, value in self.named.items()}

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return what `restore` needs: arrays by name, and facts in JSON."""
        arrays = {f"value/{n}": v.detach().cpu().numpy() for n, v in self.named.items()}
        for name, value in self.named.items():
            for moment, moments in self.optimizer.state.get(value, {}).items():
                arrays[f"{moment}/{name}"] = torch.as_tensor(moments).cpu().numpy()
        return arrays, {"distances": self.distances}

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name, value in self.named.items():
            value.copy_(torch.from_numpy(arrays[f"value/{name}"]))
            moments = {
                moment: torch.from_numpy(np.array(arrays[f"{moment}/{name}"]))
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"{moment}/{name}" in arrays
            }
            if moments:
                self.optimizer.state[value] = {
                    moment: stored if moment == "step" else stored.to(value.device)
                    for moment, stored in moments.items()
                }
        self.distances = list(facts["distances"])


def carried(
    synthesizer: Synthesizer, tuned: Mapping[str, Tensor], pivots: Tensor, config: PtiConfig
) -> WeightDeltas:
    """Return the part of tuned weights that a file can carry, with quantizer steps for its budget.

    Convolutions are truncated to the ranks of the budget; biases, ToRGB weights and the constant
    are whole. Affine layers keep the bundle's weights.

    Args:
        synthesizer: untuned.
        tuned: weights of its generator by name.
        pivots: latents `[M, L, D]`, at which the effect of rounding is measured.
        config: ranks and budget.
    """
    generator = synthesizer.generator
    deltas = WeightDeltas(generator, config.deltas)
    for name, base in deltas.base.items():
        deltas.set_change(name, tuned[name] - base)

    def render(probe: int) -> Tensor:
        styles = generator.styles(pivots[probe % len(pivots)][None])
        return synthesize(generator, styles, weights=deltas.weights())

    deltas.set_steps(picture_sensitivity(deltas, render), 8 * delta_budget(config.identity_bytes))
    return deltas.requires_grad_(False)
