"""Measure how far tuning a generator fools the embedded identity and perceptual networks.

    python -m sglat_lab.bench.faces_fooled --weights DIR --shared DIR --cache DIR --heads FILE

Latents and filters of the embedded generator are tuned to validation stills with the encoder's
loss (pixels, embedded perceptual distance, embedded identity); prints what the networks and their
teachers say of the result, before and after.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from sglat_lab.bench.faces import load_eyes
from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual, load_lpips_heads
from sglat_lab.train.adversarial_examples import TunedGenerator
from sglat_lab.train.data import prepare, to_input

WEIGHT_PERCEPTUAL, WEIGHT_IDENTITY = 0.7, 0.05  # of the encoder's loss


def main(
    weights: Annotated[Path, typer.Option(help="Folder of faces_<role>.safetensors.")],
    shared: Annotated[Path, typer.Option(help="Folder with data and teachers.")],
    cache: Annotated[Path, typer.Option(help="Decoded packs are kept here.")],
    heads: Annotated[Path, typer.Option(help="LPIPS v0.1 heads for SqueezeNet.")],
    faces: int = 8,
    steps: int = 40,
    threads: int = 1,
) -> None:
    """Tune to every face alone and print the means as JSON."""
    torch.set_num_threads(threads)
    eyes = load_eyes(weights)
    pictures = prepare(shared / "data", cache, 128)
    rows = np.random.default_rng(4).choice(pictures.rows(split="val", stills=True), faces, False)
    teachers = shared / "teachers"
    identity = MobileFaceIdentity(teachers / "mobilefacenet_id.onnx").eval()
    features = teachers / "squeezenet1_1_features.npz"
    perceptual = SqueezePerceptual(features, load_lpips_heads(heads)).eval()
    tuner = TunedGenerator()
    table: dict[str, list[list[float]]] = {"untuned": [], "tuned": []}
    for row in rows:
        reference = to_input(torch.from_numpy(np.asarray(pictures.images[row])[None]))

        def distance(made: Tensor, reference: Tensor = reference) -> Tensor:
            cosine = (eyes.embed(made) * eyes.embed(reference)).sum(1)
            seen = eyes.perceptual(made, reference)
            return WEIGHT_PERCEPTUAL * seen + WEIGHT_IDENTITY * (1 - cosine)

        tuned = tuner.tuned(reference, distance, steps=steps)
        for name, made in (("untuned", tuner.pictures(reference)), ("tuned", tuned)):
            with torch.no_grad():
                values = (
                    (eyes.embed(made) * eyes.embed(reference)).sum(1),
                    (identity(made) * identity(reference)).sum(1),
                    eyes.perceptual(made, reference),
                    perceptual(made, reference, use_heads=True),
                    (made - reference).abs().mean((1, 2, 3)),
                )
            table[name].append([float(value) for value in values])
    columns = ("identity", "identity_teacher", "perceptual", "perceptual_teacher", "l1")
    means = {
        name: dict(zip(columns, np.round(np.mean(values, 0), 4).tolist(), strict=True))
        for name, values in table.items()
    }
    print(json.dumps({"faces": faces, "steps": steps} | means, indent=1))


if __name__ == "__main__":
    typer.run(main)
