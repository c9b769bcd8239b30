"""Fit distributions of identities to a trained bundle: a mapping network, principal directions.

    python -m sglat_lab.train.mapping network --packs DIR --cache DIR --bundle DIR [--sheet FILE]
    python -m sglat_lab.train.mapping identities --packs DIR --cache DIR --bundle DIR [--sheet FILE]

`network` gives a generator that was trained as an autoencoder a mapping network. It minimises the
sliced Wasserstein distance (Bonneel et al. 2015, https://doi.org/10.1007/s10851-014-0506-3) of
mapped Gaussians and base codes of the inverter. `identities` writes the mean and the widest
principal directions of inverted stills, along which random identities are drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.bundles.manifest import write_part
from sglat.bundles.random_identities import KIND, ROLE, draw_people, principal_directions
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.train.batches import FaceSampler
from sglat_lab.train.data import prepare
from sglat_lab.train.validate import write_sheet

LAYERS = 3
DIRECTIONS = 48


@torch.no_grad()
def base_codes(inverter: torch.nn.Module, sampler: FaceSampler, count: int) -> Tensor:
    """Return the mean style row of real stills, `[N, D]`."""
    rows = sampler.stills[:: max(1, len(sampler.stills) // count)]
    codes = [inverter(sampler.batch(part).images).mean(1) for part in np.array_split(rows, 60)]
    return torch.cat(codes)


def sliced_distance(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Return the mean squared sliced Wasserstein distance of two sets `[N, D]` of one size."""
    return (
        (torch.sort(a @ directions, 0).values - torch.sort(b @ directions, 0).values)
        .square()
        .mean()
    )


def fit_mapping(
    generator: Generator, codes: Tensor, *, steps: int, batch: int = 1024, seed: int = 0
) -> None:
    """Train the generator's mapping network on real codes `[N, D]`, in place; sets `w_avg`."""
    random = torch.Generator().manual_seed(seed)
    mapping = generator.mapping.requires_grad_(True)
    mean, scale = codes.mean(0), codes.std(0)
    optimizer = torch.optim.Adam(mapping.parameters(), lr=0.02, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * min(1.0, 2 * (steps - step) / steps)
        z = torch.randn(batch, generator.config.latent_dim, generator=random)
        chosen = codes[torch.randint(0, len(codes), (batch,), generator=random)]
        directions = torch.randn(codes.shape[1], 128, generator=random)
        directions = directions / directions.norm(dim=0)
        mapped = (mapping(z) - mean) / scale
        loss = sliced_distance(mapped, (chosen - mean) / scale, directions)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step}: sliced distance {float(loss.detach()):.4f}", flush=True)
    mapping.requires_grad_(False)
    generator.w_avg.copy_(mean)


def with_mapping(generator: Generator, layers: int) -> Generator:
    """Return the same generator with a fresh mapping network."""
    config = GeneratorConfig.from_json({**generator.config.to_json(), "mapping_layers": layers})
    result = Generator(config)
    kept = {k: v for k, v in generator.state_dict().items() if not k.startswith("mapping.")}
    result.load_state_dict(kept, strict=False)
    return result.requires_grad_(False)


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options of all fits to a trained bundle."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for name in ("packs", "cache", "bundle"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--sheet", type=Path)
    return parser


def opened(args: argparse.Namespace) -> tuple[Bundle, FaceSampler]:
    """Return the bundle and the training faces of the options."""
    faces = prepare(args.packs, args.cache, 128)
    sampler = FaceSampler(faces, args.packs, device=torch.device("cpu"), seed=0)
    return load_bundle(args.bundle), sampler


@torch.no_grad()
def draw_sheet(path: Path, generator: Generator, ws: Tensor) -> None:
    """Write the pictures of latents `[N, L, D]`, sixteen a row."""
    pictures = torch.cat([generator(part) for part in ws.split(16)])
    write_sheet(path, list(pictures.clamp(-1, 1).split(16)))


@torch.no_grad()
def latents_of(bundle: Bundle, sampler: FaceSampler, count: int) -> Tensor:
    """Return the latents `[N, L, D]` of `count` training stills, spread over all."""
    stills = sampler.stills
    rows = stills[np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)]
    parts = np.array_split(rows, max(1, len(rows) // 32))
    return torch.cat([bundle.inverter(sampler.batch(part).images) for part in parts])


def fit_identities(bundle: Bundle, latents: Tensor, *, directions: int = DIRECTIONS) -> None:
    """Write mean and directions of latents `[N, L, D]` into the bundle's folder."""
    mean, found = principal_directions(latents, directions)
    part = bundle.part("generator")
    write_part(
        bundle.folder, name=bundle.name, role=ROLE, kind=KIND,
        tensors={"mean": mean.half(), "directions": found.half().contiguous()},
        licence=part.licence, source=part.source,
    )  # fmt: skip


def add_mapping(args: argparse.Namespace, bundle: Bundle, sampler: FaceSampler) -> None:
    """Fit a mapping network to the bundle's inverter and write it into the bundle."""
    codes = base_codes(bundle.inverter, sampler, args.codes)
    generator = with_mapping(bundle.generator, LAYERS)
    torch.manual_seed(0)
    fit_mapping(generator, codes, steps=args.steps)
    part = bundle.part("generator")
    write_part(
        args.bundle, name=bundle.name, role="generator", kind=part.kind,
        tensors={k: v.half() for k, v in generator.state_dict().items()},
        config=generator.config.to_json(), licence=part.licence, source=part.source,
    )  # fmt: skip
    if args.sheet is not None:
        z = torch.randn(64, generator.config.latent_dim, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ws = generator.repeat(generator.truncate(generator.mapping(z), 0.7))
        draw_sheet(args.sheet, generator, ws)


def add_identities(args: argparse.Namespace, bundle: Bundle, sampler: FaceSampler) -> None:
    """Fit principal directions of latents and write them into the bundle."""
    fit_identities(bundle, latents_of(bundle, sampler, args.latents))
    if args.sheet is not None:
        fitted = load_bundle(args.bundle)
        draw_sheet(args.sheet, fitted.generator, draw_people(fitted, 64, seed=1))


def main() -> None:
    """Parse the arguments, fit, and draw a sheet of random identities."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("fit", choices=("network", "identities"))
    parser.add_argument("--steps", type=int, default=1500, help="of the mapping network")
    parser.add_argument("--codes", type=int, default=6000, help="stills for the mapping network")
    parser.add_argument("--latents", type=int, default=4000, help="stills for the directions")
    args = parser.parse_args()
    (add_mapping if args.fit == "network" else add_identities)(args, *opened(args))


if __name__ == "__main__":
    main()
