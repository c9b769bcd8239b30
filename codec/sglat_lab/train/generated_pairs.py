"""Write pairs of faces and generator outputs for the perceptual network.

    python -m sglat_lab.train.generated_pairs --packs DIR --cache DIR --output FILE.npz

Each picture is rendered from the inverted latents of a face, from these with noise, or from a
mixture with another face's. With `--against` and a perceptual network's weights, each is an
adversarial example: the generator tuned to a face with that network as the loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor

from sglat.bundles.bundle import EMBEDDED
from sglat.networks.devices import fast_type
from sglat.networks.embedded_analysis import load_weights
from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.networks.pixels import from_pixels, to_pixels
from sglat_lab.train.adversarial_examples import TunedGenerator
from sglat_lab.train.data import Faces, prepare

BATCH = 16
TUNED_STEPS = (4, 33)  # from, to below
WEIGHT_PERCEPTUAL = 0.7  # of the encoder's loss


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
            made = maker.render(moved(maker.inverter(references).float(), generator))
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
        network = PerceptualNetwork().eval().requires_grad_(False)
        load_weights(network, load_file(against), "perceptual")
        pairs = tuned_pairs(faces, maker, network, train=train, seed=seed)
    np.savez(output, rows=pairs["rows"], pictures=pairs["pictures"])


if __name__ == "__main__":
    typer.run(main)
