"""Hybrid inversion: the inverter's latent is where an optimisation of W+ starts.

An inverter says in one pass what most faces have in common; what is this face's own is found in a
few seconds by following the gradient of the generator (Zhu et al. 2016,
https://arxiv.org/abs/1609.03552, section 3.2; in W+: Abdal et al. 2019,
https://arxiv.org/abs/1904.03189).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.schedule import warm_up_and_fall
from sglat.networks.devices import fast_type


@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """How latents are refined."""

    steps: int = 200
    rate: float = 0.3
    """Step length of Adam in W+, whose rows are about unit normal."""
    warm_up: int = 10
    """Steps over which the rate rises; over the second half it falls."""
    weight_l2: float = 4.0
    weight_perceptual: float = 2.0


def refine_latents(
    bundle: Bundle,
    pictures: Tensor,
    ws: Tensor,
    config: RefineConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return W+ latents `[N, L, D]` whose renderings are closer to the pictures.

    Every picture is refined by itself; the batch only saves time.

    Args:
        bundle: generator and perceptual network.
        pictures: aligned crops in [-1, 1], `[N, 3, H, W]`, on the bundle's device.
        ws: where to start, `[N, L, D]`.
        config: steps and weights; without steps the start comes back.
        progress: called with (step, steps).
    """
    generator = bundle.generator
    perceptual = bundle.perceptual if config.weight_perceptual else None
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = perceptual.features(pictures) if perceptual is not None else []
    latents = ws.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([latents], betas=(0.9, 0.95))
    for step in range(config.steps):
        factor = warm_up_and_fall(step, config.steps, config.warm_up)
        optimizer.param_groups[0]["lr"] = config.rate * factor
        shown = generator(latents, dtype=fast_type(latents.device)).float()
        loss = config.weight_l2 * (shown - pictures).square().mean((1, 2, 3))
        if perceptual is not None:
            distance = perceptual.distance(perceptual.features(shown), wanted)
            loss = loss + config.weight_perceptual * distance
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, config.steps)
    return latents.detach()
