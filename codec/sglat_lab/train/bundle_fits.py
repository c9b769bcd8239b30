"""Fits to a trained bundle: mapping network, identity directions, degrees of the pose flow.

    python -m sglat_lab.train.bundle_fits FIT --packs DIR --cache DIR --bundle DIR

`network` gives a generator that was trained as an autoencoder a mapping network. It minimises the
sliced Wasserstein distance (Bonneel et al. 2015, https://doi.org/10.1007/s10851-014-0506-3) of
mapped Gaussians and base codes of the inverter. `identities` writes the mean and the widest
principal directions of inverted stills, along which random identities are drawn. `pose` turns
stills and random identities, measures their pose with the landmark network, and scales the flow's
conditions until the measured angle rises by one degree per requested degree. `motions` writes a
motion bank: typical motions of the training clips, relative to their reference frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.bundles.bundle import PEOPLE_KIND, PEOPLE_ROLE, Bundle, draw_identities, load_bundle
from sglat.bundles.manifest import write_part
from sglat.encoder.motion_bank import ROLE
from sglat.encoder.start_motion import comparable
from sglat.networks.pixels import from_pixels, to_pixels
from sglat.networks.pose_flow import ConcatSquash, PoseFlow
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.measure.landmarks import EmbeddedLandmarker
from sglat_lab.train.auto_decoder_losses import reference_rows
from sglat_lab.train.data import FaceSampler, prepare
from sglat_lab.train.export import halved
from sglat_lab.train.mini_model import write_sheet

BATCH: Final = 16
LAYERS = 3
DIRECTIONS = 48
ANGLES: Final = ((-20.0, -10.0, 0.0, 10.0, 20.0), (-12.0, -6.0, 0.0, 6.0, 12.0))  # yaw, pitch
ROUNDS: Final = 2  # the measured angle is slightly nonlinear in the requested one

MOTIONS: Final = 256  # in the bank: 17 kB
CLUSTER_ROUNDS: Final = 12  # of k-means; the clusters hardly change afterwards


def sliced_distance(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Return the mean squared sliced Wasserstein distance of two sets `[N, D]` of one size."""
    return (
        (torch.sort(a @ directions, 0).values - torch.sort(b @ directions, 0).values)
        .square()
        .mean()
    )


def fit_mapping(generator: Generator, codes: Tensor, *, steps: int, batch: int = 1024) -> None:
    """Train the generator's mapping network on real codes `[N, D]`, in place; sets `w_avg`."""
    random = torch.Generator().manual_seed(0)
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


@torch.no_grad()
def rendered(generator: Generator, ws: Tensor) -> NDArray[np.uint8]:
    """Return the pictures `[N, H, W, 3]` of latents `[N, L, D]`."""
    return np.concatenate([to_pixels(generator(part)) for part in ws.split(BATCH)])


def draw_sheet(path: Path, generator: Generator, ws: Tensor) -> None:
    """Write the pictures of latents `[N, L, D]`, sixteen a row."""
    write_sheet(path, list(from_pixels(rendered(generator, ws)).split(16)))


@torch.no_grad()
def latents_of(bundle: Bundle, sampler: FaceSampler, count: int) -> tuple[Tensor, Tensor]:
    """Return latents `[N, L, D]` and poses `[N, 2]` of `count` training stills, spread over all."""
    stills = sampler.stills
    rows = stills[np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)]
    batches = map(sampler.batch, np.array_split(rows, max(1, len(rows) // BATCH)))
    pairs = [(bundle.inverter(batch.images), batch.pose_degrees) for batch in batches]
    ws, poses = map(torch.cat, zip(*pairs, strict=True))
    return ws, poses


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


def fit_identities(bundle: Bundle, latents: Tensor) -> None:
    """Write mean and directions of latents `[N, L, D]` into the bundle's folder."""
    mean, found = principal_directions(latents, DIRECTIONS)
    _write(bundle, PEOPLE_ROLE, {"mean": mean, "directions": found}, kind=PEOPLE_KIND)


def _write(
    bundle: Bundle,
    role: str,
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write a part of a bundle in half precision, under the licence of its generator."""
    part = bundle.part("generator")
    write_part(
        bundle.folder, name=bundle.name, role=role, kind=kind, tensors=halved(tensors),
        config=config, licence=part.licence, source=part.source,
    )  # fmt: skip


def add_mapping(args: argparse.Namespace, bundle: Bundle, sampler: FaceSampler) -> None:
    """Fit a mapping network to the bundle's inverter and write it into the bundle."""
    codes = latents_of(bundle, sampler, args.codes)[0].mean(1)
    generator = with_mapping(bundle.generator, LAYERS)
    torch.manual_seed(0)
    fit_mapping(generator, codes, steps=args.steps)
    kind, config = bundle.part("generator").kind, generator.config.to_json()
    _write(bundle, "generator", generator.state_dict(), kind=kind, config=config)
    if args.sheet is not None:
        z = torch.randn(64, generator.config.latent_dim, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ws = generator.repeat(generator.truncate(generator.mapping(z), 0.7))
        draw_sheet(args.sheet, generator, ws)


def add_identities(args: argparse.Namespace, bundle: Bundle, sampler: FaceSampler) -> None:
    """Fit principal directions of latents and write them into the bundle."""
    fit_identities(bundle, latents_of(bundle, sampler, args.latents)[0])
    if args.sheet is not None:
        fitted = load_bundle(args.bundle)
        draw_sheet(args.sheet, fitted.generator, draw_identities(fitted, 64, seed=1))


@torch.no_grad()
def stretch(flow: PoseFlow, factors: tuple[float, float]) -> None:
    """Scale the flow's conditions: one degree of yaw and pitch acts as `factors` before."""
    for layer in flow.layers:
        assert isinstance(layer, ConcatSquash)
        for part in (layer.gate, layer.shift):  # their inputs: time, yaw, pitch
            part.weight[:, 1:].mul_(part.weight.new_tensor(factors))


@torch.no_grad()
def identities_of(bundle: Bundle, sampler: FaceSampler, count: int) -> tuple[Tensor, Tensor]:
    """Return latents `[N, L, D]` and poses `[N, 2]` of stills and half as many random
    identities."""
    ws, poses = latents_of(bundle, sampler, count)
    drawn = draw_identities(bundle, count // 2, seed=5)
    seen = EmbeddedLandmarker(bundle.faces).signals(rendered(bundle.generator, drawn))
    measured = torch.from_numpy(seen.pose[seen.is_found])
    return torch.cat([ws, drawn[seen.is_found]]), torch.cat([poses, measured])


@torch.no_grad()
def turned(
    bundle: Bundle, ws: Tensor, source: Tensor, axis: int, angle: float
) -> NDArray[np.uint8]:
    """Return pictures of persons turned to an angle about one axis, and to 0 about the other.

    Args:
        bundle: generator and pose flow.
        ws: latents `[N, L, D]`.
        source: their yaw and pitch, `[N, 2]`.
        axis: 0: yaw, 1: pitch.
        angle: in degrees.
    """
    target = torch.zeros(len(ws), 2)
    target[:, axis] = angle
    return rendered(bundle.generator, bundle.pose_flow.turn(ws, source, target))


def slopes(bundle: Bundle, ws: Tensor, source: Tensor) -> tuple[float, float]:
    """Return the slopes of measured over requested yaw and pitch.

    Args:
        bundle: generator, pose flow and landmark network.
        ws: latents `[N, L, D]`.
        source: their yaw and pitch, `[N, 2]`.
    """
    landmarker, found = EmbeddedLandmarker(bundle.faces), []
    for axis, angles in enumerate(ANGLES):
        pictures = [turned(bundle, ws, source, axis, angle) for angle in angles]
        y = np.concatenate([landmarker.signals(some).pose[:, axis] for some in pictures])
        x, is_valid = np.repeat(angles, len(ws)), np.isfinite(y)
        found.append(float(np.polyfit(x[is_valid], y[is_valid], 1)[0]))
    return found[0], found[1]


def calibrate(bundle: Bundle, ws: Tensor, source: Tensor) -> list[tuple[float, float]]:
    """Calibrate the pose flow of an opened bundle in place; return the slopes before each round
    and after the last.

    Raises:
        ValueError: the pose flow barely turns the head.
    """
    flow = cast(PoseFlow, bundle.pose_flow)
    history = [slopes(bundle, ws, source)]
    for _ in range(ROUNDS):
        if min(history[-1]) < 0.2:
            raise ValueError(f"expected heads that turn when asked, found slopes {history[-1]}")
        stretch(flow, (1 / history[-1][0], 1 / history[-1][1]))
        history.append(slopes(bundle, ws, source))
    return history


def calibrate_pose(args: argparse.Namespace, bundle: Bundle, sampler: FaceSampler) -> None:
    """Calibrate the pose flow and write it into the bundle."""
    for yaw, pitch in calibrate(bundle, *identities_of(bundle, sampler, args.people)):
        print(f"measured per requested degree: yaw {yaw:.3f}, pitch {pitch:.3f}", flush=True)
    part, flow = bundle.part("pose_flow"), cast(nn.Module, bundle.pose_flow)
    _write(bundle, "pose_flow", flow.state_dict(), kind=part.kind, config=part.config)


@torch.no_grad()
def clip_motions(bundle: Bundle, sampler: FaceSampler) -> Tensor:
    """Return yaw, pitch and controls of all training frames and their mirror images, relative to
    the reference frames of their clips, `[N, 34]`."""
    found = []
    estimator = bundle.module("estimator")
    for rows, reference in zip(sampler.clips, reference_rows(sampler), strict=True):
        both = np.append(rows, reference)
        for is_mirrored in (False, True):
            batch = sampler.batch(both, mirrored=torch.full((len(both),), is_mirrored))
            controls = estimator(batch.points, batch.blendshapes, batch.pose_degrees)
            motion = torch.cat([batch.pose_degrees, controls], 1)
            found.append(motion[:-1] - motion[-1:])
    return torch.cat(found)


@torch.no_grad()
def typical_motions(motions: Tensor, size: int) -> Tensor:
    """Return the motions `[K, 34]` of `[N, 34]` nearest to the centres of k-means, K <= size."""
    places = comparable(motions)
    random = torch.Generator().manual_seed(0)
    centres = places[torch.randperm(len(places), generator=random)[:size]]
    for _ in range(CLUSTER_ROUNDS):
        nearest = torch.cdist(places, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, places)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
    medoids = torch.cdist(centres, places).argmin(1).unique()
    chosen: Tensor = motions[medoids]
    return chosen


def write_bank(bundle: Bundle, motions: Tensor) -> None:
    """Write motions `[K, 34]` into the bundle's folder."""
    _write(bundle, ROLE, {"motions": motions}, kind=ROLE)


def fit_motions(bundle: Bundle, sampler: FaceSampler, *, size: int = MOTIONS) -> None:
    """Write a motion bank in the bundle's controls into its folder."""
    write_bank(bundle, typical_motions(clip_motions(bundle, sampler), size))


FITS = {
    "network": add_mapping, "identities": add_identities, "pose": calibrate_pose,
    "motions": lambda args, *of: fit_motions(*of, size=args.motions),
}  # fmt: skip


def main() -> None:
    """Parse the arguments and fit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("fit", choices=FITS)
    for name in ("packs", "cache", "bundle"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--steps", type=int, default=1500, help="of the mapping network")
    parser.add_argument("--codes", type=int, default=6000, help="stills for the mapping network")
    parser.add_argument("--latents", type=int, default=4000, help="stills for the directions")
    parser.add_argument("--motions", type=int, default=MOTIONS, help="in the bank, at most")
    parser.add_argument("--people", type=int, default=60, help="stills for the pose")
    args = parser.parse_args()
    faces = prepare(args.packs, args.cache, 128)
    sampler = FaceSampler(faces, args.packs, device=torch.device("cpu"), seed=0)
    FITS[args.fit](args, load_bundle(args.bundle), sampler)


if __name__ == "__main__":
    main()
