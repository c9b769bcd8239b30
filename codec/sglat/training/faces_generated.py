"""Write down what a bundle's generator makes of faces: pairs for the perceptual network.

    python -m sglat.training.faces_generated --packs DIR --cache DIR --output FILE.npz

Each picture is the generator's answer to the inverter's latents of a face, to these latents with
noise, or to a mixture with another face's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from sglat.bundles.bundle import EMBEDDED
from sglat.networks.precision import fast_type
from sglat.training.data import Faces, prepare
from sglat.training.faces_hard import TunedGenerator
from sglat.training.faces_landmarks import to_input

BATCH = 16


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
        references = to_input(torch.from_numpy(np.asarray(faces.images[some])))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            made = maker.render(moved(maker.inverter(references).float(), generator))
        levels = (made.float().permute(0, 2, 3, 1) + 1) * 127.5
        pictures.append(levels.round().clamp(0, 255).to(torch.uint8).numpy())
    return {"rows": rows, "pictures": np.concatenate(pictures)}


def main(
    packs: Annotated[Path, typer.Option(help="Folder of the labelled packs.")],
    cache: Annotated[Path, typer.Option(help="Where decoded pictures are kept.")],
    output: Annotated[Path, typer.Option(help="The npz to write.")],
    bundle: Annotated[str, typer.Option(help="Whose generator and inverter.")] = EMBEDDED,
    train: int = 1008,
    val: int = 128,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Write generator outputs for faces of the training and the validation split."""
    torch.set_num_threads(threads)
    faces = prepare(packs, cache, 128)
    pairs = generated_pairs(faces, TunedGenerator(bundle), train=train, val=val, seed=seed)
    np.savez(output, rows=pairs["rows"], pictures=pairs["pictures"])


if __name__ == "__main__":
    typer.run(main)
