"""Adversarial examples for the training of embedded distances.

The encoder minimises these distances by gradient steps on a generator. A network trained on natural
distortions alone underestimates the distance of the result; training with adversarial examples and
the teacher's distances for them corrects this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sglat.bundles.bundle import EMBEDDED, load_bundle

WEIGHT_L2 = 4.0  # of the encoder's loss, beside the weights of its perceptual and identity terms


def fooled(
    start: Tensor,
    reference: Tensor,
    distance: Callable[[Tensor], Tensor],
    generator: np.random.Generator,
    *,
    steps: int,
) -> Tensor:
    """Return pictures after gradient steps on their pixels that lower a distance.

    Each call smooths the gradient over a patch of another size: a generator cannot change single
    pixels.

    Args:
        start: `[N, 3, H, W]` in [-1, 1].
        reference: targets, of the same shape.
        distance: one distance a picture, `[N]`; differentiable.
        generator: draws the patch and the length of the steps.
        steps: how many.
    """
    radius = int(generator.choice((0, 1, 2, 3)))
    reach = float(np.exp(generator.uniform(np.log(0.008), np.log(0.04))))
    pictures = start.detach()
    for _ in range(steps):
        pictures = pictures.requires_grad_()
        loss = distance(pictures) + WEIGHT_L2 * (pictures - reference).square().mean((1, 2, 3))
        (slope,) = torch.autograd.grad(loss.sum(), pictures)
        slope = functional.avg_pool2d(slope, 2 * radius + 1, 1, radius)
        slope = slope / (slope.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)
        pictures = (pictures - reach * slope).clamp(-1, 1).detach()
    return pictures


class TunedGenerator:
    """A bundle's generator and inverter, tuned to pictures as an encoder tunes them."""

    def __init__(self, bundle: str | Path = EMBEDDED, *, size: int = 128) -> None:
        loaded = load_bundle(bundle)
        self.generator = loaded.generator.requires_grad_(False)
        self.inverter = loaded.inverter.requires_grad_(False)
        self.size = size
        self.weights = {
            name: value.clone()
            for name, value in self.generator.named_parameters()
            if value.ndim >= 4
        }

    @torch.no_grad()
    def pictures(self, references: Tensor) -> Tensor:
        """Return the untuned reconstructions of pictures `[N, 3, H, W]` in [-1, 1]."""
        return self.render(self.inverter(references))

    def render(self, latents: Tensor) -> Tensor:
        """Return the untuned generator's pictures `[N, 3, size, size]` of latents `[N, L, W]`."""
        return self._render(latents, {})

    def tuned(
        self,
        references: Tensor,
        distance: Callable[[Tensor], Tensor],
        *,
        steps: int,
        rate: float = 0.004,
    ) -> Tensor:
        """Return generator outputs after Adam steps on latents and filters that lower a distance.

        Args:
            references: `[N, 3, size, size]` in [-1, 1].
            distance: one distance a picture, `[N]`; differentiable.
            steps: how many.
            rate: learning rate of the filters relative to their size; tenfold for latents.
        """
        with torch.no_grad():
            latents = self.inverter(references).detach().clone().requires_grad_()
        offsets = {
            name: torch.zeros_like(value).requires_grad_() for name, value in self.weights.items()
        }
        optimizer = torch.optim.Adam(
            [
                {"params": list(offsets.values()), "lr": rate},
                {"params": [latents], "lr": 10 * rate},
            ],
            betas=(0.9, 0.99),
        )
        for _ in range(steps):
            pictures = self._render(latents, offsets)
            squared = (pictures - references).square().mean((1, 2, 3))
            loss = (distance(pictures) + WEIGHT_L2 * squared).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return self._render(latents, offsets)

    def _render(self, latents: Tensor, offsets: dict[str, Tensor]) -> Tensor:
        changed = {
            name: self.weights[name] * (1 + offset) + 0.1 * offset * self.weights[name].std()
            for name, offset in offsets.items()
        }
        made: Tensor = torch.func.functional_call(self.generator, changed, (latents,))
        if made.shape[-1] != self.size:
            made = functional.interpolate(made, (self.size, self.size), mode="area")
        return made.clamp(-1, 1)
