"""Random identities: ID latents sampled from a bundle.

A mapping network broadcasts one w to all rows of W+. A generator trained behind an inverter expects
rows that differ; one w for all of them renders two superimposed faces. Such a bundle may bring a
part `people`: mean and principal directions of its inverter's latents, from which whole latents are
drawn.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.errors import BundleError

ROLE: Final = "people"
KIND: Final = "latent_directions"
TRUNCATION: Final = 0.7
"""Share of the standard deviation that latents are drawn with (Karras et al. 2019, appendix B)."""


def draw_identities(
    bundle: Bundle, count: int, *, seed: int = 0, truncation: float = TRUNCATION
) -> Tensor:
    """Return random ID latents `[count, L, D]`.

    Drawn from the part `people` where the bundle has it, else from the mapping network.

    Raises:
        BundleError: the bundle has neither, or its part does not fit its generator.
    """
    random = torch.Generator().manual_seed(seed)
    if bundle.has(ROLE):
        mean, directions = _directions(bundle)
        z = torch.randn(count, len(directions), generator=random) * truncation
        latents: Tensor = mean + torch.einsum("nk,kld->nld", z.to(mean.device), directions)
        return latents
    generator = bundle.generator
    z = torch.randn(count, bundle.config.latent_dim, generator=random).to(bundle.device)
    return generator.repeat(generator.truncate(generator.mapping(z), truncation))


def principal_directions(latents: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean `[L, D]` and the `count` widest directions `[count, L, D]` of latents.

    A direction's length is the standard deviation along it.

    Args:
        latents: `[N, L, D]`, more than `count` of them.
        count: how many directions.
    """
    mean = latents.mean(0)
    _, lengths, rows = torch.linalg.svd((latents - mean).flatten(1), full_matrices=False)
    scaled = rows[:count] * (lengths[:count, None] / (len(latents) - 1) ** 0.5)
    return mean, scaled.view(-1, *mean.shape)


def _directions(bundle: Bundle) -> tuple[Tensor, Tensor]:
    part = bundle.part(ROLE)
    if part.kind != KIND:
        raise BundleError("unknown-kind", f"expected people as {KIND}, found {part.kind!r:.80}")
    tensors = bundle.tensors(ROLE)
    wanted = (bundle.config.num_ws, bundle.config.style_dim)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    mean, directions = shapes.get("mean"), shapes.get("directions", ())
    if mean != wanted or directions[1:] != wanted:
        raise BundleError(
            "wrong-shape", f"expected people of mean {wanted} and directions beside, found {shapes}"
        )
    return (
        tensors["mean"].float().to(bundle.device),
        tensors["directions"].float().to(bundle.device),
    )
