"""Finds the directions that random people are drawn along, and writes them into a bundle.

    python -m sglat_lab.train.random_identities --packs DIR --cache DIR --bundle DIR [--sheet FILE]

takes mean and widest principal directions of the inverter's latents of the training stills.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.bundles.manifest import write_part
from sglat.bundles.random_identities import KIND, ROLE, draw_people, principal_directions
from sglat_lab.train.batches import FaceSampler
from sglat_lab.train.mapping import draw_sheet, opened, parser_of

DIRECTIONS = 48


@torch.no_grad()
def latents_of(bundle: Bundle, sampler: FaceSampler, count: int) -> Tensor:
    """Return the latents `[N, L, D]` of `count` training stills, spread over all."""
    stills = sampler.stills
    rows = stills[np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)]
    parts = np.array_split(rows, max(1, len(rows) // 32))
    return torch.cat([bundle.inverter(sampler.batch(part).images) for part in parts])


def fit_people(bundle: Bundle, latents: Tensor, *, directions: int = DIRECTIONS) -> None:
    """Write mean and directions of latents `[N, L, D]` into the bundle's folder."""
    mean, found = principal_directions(latents, directions)
    part = bundle.part("generator")
    write_part(
        bundle.folder, name=bundle.name, role=ROLE, kind=KIND,
        tensors={"mean": mean.half(), "directions": found.half().contiguous()},
        licence=part.licence, source=part.source,
    )  # fmt: skip


def main() -> None:
    """Parse the arguments, fit, and draw a sheet of people."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--latents", type=int, default=4000)
    args = parser.parse_args()
    bundle, sampler = opened(args)
    fit_people(bundle, latents_of(bundle, sampler, args.latents))
    if args.sheet is not None:
        fitted = load_bundle(args.bundle)
        draw_sheet(args.sheet, fitted.generator, draw_people(fitted, 64, seed=1))


if __name__ == "__main__":
    main()
