"""Adversarial examples for the training of embedded distances.

The encoder minimises these distances by gradient steps on a generator. A network trained on natural
distortions alone underestimates the distance of the result; training with adversarial examples and
the teacher's distances for them corrects this.

    python -m sglat_lab.train.adversarial_examples --packs DIR --cache DIR --output FILE.npz

Each picture is rendered from the inverted latents of a face, from these with noise, or from a
mixture with another face's. With `--against` and a perceptual network's weights, each is an
adversarial example: the generator tuned to a face with that network as the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from sglat.bundles.bundle import EMBEDDED, load_bundle
from sglat.bundles.manifest import fill_network
from sglat.networks.devices import fast_type
from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.networks.pixels import from_pixels, to_pixels
from sglat_lab.train.data import Faces, prepare

WEIGHT_L2 = 4.0  # of the encoder's loss, beside the weights of its perceptual and identity terms
SIDE = 128  # of the pictures
BATCH = 16
TUNED_STEPS = (4, 33)  # from, to below
WEIGHT_PERCEPTUAL = 0.7  # of the encoder's loss


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

    def __init__(self, bundle: str | Path = EMBEDDED) -> None:
        loaded = load_bundle(bundle)
        self.generator = loaded.generator.requires_grad_(False)
        self.inverter = loaded.inverter.requires_grad_(False)
        self.weights = {
            name: value.clone()
            for name, value in self.generator.named_parameters()
            if value.ndim >= 4
        }

    @torch.no_grad()
    def pictures(self, references: Tensor) -> Tensor:
        """Return the untuned reconstructions of pictures `[N, 3, H, W]` in [-1, 1]."""
        return self.render(self.inverter(references), {})

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
            references: `[N, 3, 128, 128]` in [-1, 1].
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
            pictures = self.render(latents, offsets)
            squared = (pictures - references).square().mean((1, 2, 3))
            loss = (distance(pictures) + WEIGHT_L2 * squared).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return self.render(latents, offsets)

    def render(self, latents: Tensor, offsets: dict[str, Tensor]) -> Tensor:
        """Return pictures `[N, 3, 128, 128]` of latents `[N, L, W]` with filters changed by
        offsets."""
        changed = {
            name: self.weights[name] * (1 + offset) + 0.1 * offset * self.weights[name].std()
            for name, offset in offsets.items()
        }
        made: Tensor = torch.func.functional_call(self.generator, changed, (latents,))
        if made.shape[-1] != SIDE:
            made = functional.interpolate(made, (SIDE, SIDE), mode="area")
        return made.clamp(-1, 1)


def moved(latents: Tensor, generator: np.random.Generator) -> Tensor:
    """Return latents `[N, L, W]` as they are, with noise, or mixed with the next face's."""
    others = latents.roll(1, 0)
    deviation = latents.std(0, keepdim=True)
    result = []
    for index in range(len(latents)):
        own = latents[index]
        kind = generator.random()
        if kind > 0.65:
            own = torch.lerp(own, others[index], float(generator.uniform(0.03, 0.5)))
        elif kind > 0.3:
            noise = torch.from_numpy(generator.standard_normal(own.shape, np.float32))
            own = own + float(generator.uniform(0.05, 0.6)) * deviation[0] * noise
        result.append(own)
    return torch.stack(result)


@torch.no_grad()
def generated_pairs(
    faces: Faces, maker: TunedGenerator, *, train: int, val: int, seed: int
) -> dict[str, np.ndarray]:
    """Return `rows` `[M]` and `pictures` `[M, 128, 128, 3]` uint8, one a face."""
    generator = np.random.default_rng(seed)
    chosen = [
        generator.choice(faces.rows(split=split), count, replace=False)
        for split, count in (("train", train), ("val", val))
    ]
    rows, pictures = np.concatenate(chosen).astype(np.int64), []
    dtype = fast_type(torch.device("cpu"))
    for first in range(0, len(rows), BATCH):
        some = np.sort(rows[first : first + BATCH])
        rows[first : first + BATCH] = some
        references = from_pixels(faces.images[some])
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            made = maker.render(moved(maker.inverter(references).float(), generator), {})
        pictures.append(to_pixels(made))
    return {"rows": rows, "pictures": np.concatenate(pictures)}


def tuned_pairs(
    faces: Faces, maker: TunedGenerator, network: PerceptualNetwork, *, train: int, seed: int
) -> dict[str, np.ndarray]:
    """Return `rows` `[M]` and `pictures` `[M, 128, 128, 3]` uint8 of a generator tuned to one face
    at a time, to each for another number of steps.
    """
    generator = np.random.default_rng(seed)
    rows = generator.choice(faces.rows(split="train"), train, replace=False).astype(np.int64)
    pictures = []
    for row in rows:
        reference = from_pixels(faces.images[row][None])
        with torch.no_grad():
            target = network.features(reference)

        def distance(made: Tensor, target: list[Tensor] = target) -> Tensor:
            return WEIGHT_PERCEPTUAL * network.distance(network.features(made), target)

        steps = int(generator.integers(*TUNED_STEPS))
        pictures.append(to_pixels(maker.tuned(reference, distance, steps=steps)))
    return {"rows": rows, "pictures": np.concatenate(pictures)}


def main(
    packs: Annotated[Path, typer.Option(help="Folder of the labelled packs.")],
    cache: Annotated[Path, typer.Option(help="Where decoded pictures are kept.")],
    output: Annotated[Path, typer.Option(help="The npz to write.")],
    bundle: Annotated[str, typer.Option(help="Whose generator and inverter.")] = EMBEDDED,
    against: Annotated[
        Path | None, typer.Option(help="Perceptual weights to tune against; training faces only.")
    ] = None,
    train: int = 1008,
    val: int = 128,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Write generator outputs for faces of the training and the validation split."""
    torch.set_num_threads(threads)
    faces = prepare(packs, cache, 128)
    maker = TunedGenerator(bundle)
    if against is None:
        pairs = generated_pairs(faces, maker, train=train, val=val, seed=seed)
    else:
        network = PerceptualNetwork()
        fill_network(network, load_file(against), place=str(against))
        pairs = tuned_pairs(faces, maker, network, train=train, seed=seed)
    np.savez(output, rows=pairs["rows"], pictures=pairs["pictures"])


if __name__ == "__main__":
    typer.run(main)
