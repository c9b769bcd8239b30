"""Finds the directions that random people are drawn along, and writes them into a bundle.

    python -m sglat.training.people --packs DIR --cache DIR --bundle DIR [--sheet FILE]

takes mean and widest principal directions of the inverter's latents of the training stills.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.bundles.manifest import write_part
from sglat.bundles.people import KIND, ROLE, draw_people, principal_directions
from sglat.training.batches import FaceSampler
from sglat.training.data import prepare
from sglat.training.validate import write_sheet

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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("packs", "cache", "bundle"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--latents", type=int, default=4000)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    faces = prepare(args.packs, args.cache, 128)
    sampler = FaceSampler(faces, args.packs, device=torch.device("cpu"), seed=0)
    fit_people(bundle, latents_of(bundle, sampler, args.latents))
    if args.sheet is not None:
        people = draw_people(load_bundle(args.bundle), 64, seed=1)
        with torch.no_grad():
            pictures = torch.cat([bundle.generator(part) for part in people.split(16)])
        write_sheet(args.sheet, list(pictures.clamp(-1, 1).split(16)))


if __name__ == "__main__":
    main()
