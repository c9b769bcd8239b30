"""Train one of the embedded face networks and export its weights:
`python -m sglat_lab.train.face NAME --packs DIR --cache DIR --folder DIR`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import cv2
import torch
import typer

from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual
from sglat_lab.train.adversarial_examples import TunedGenerator
from sglat_lab.train.data import blendshape_names, prepare, read_parsing
from sglat_lab.train.faces_aligned import IdentityTask, ParsingTask, teacher_vectors
from sglat_lab.train.faces_detector import DetectorTask
from sglat_lab.train.faces_landmarks import LandmarkTask
from sglat_lab.train.faces_loop import LoopConfig, Task, fit
from sglat_lab.train.faces_perceptual import PerceptualTask, read_generated

Name = Literal["detector", "landmarks", "parsing", "identity", "perceptual"]


DEFAULTS: Final[dict[Name, tuple[int, int, float]]] = {  # steps, batch size, learning rate
    "detector": (4000, 16, 2e-3),
    "landmarks": (6000, 32, 2e-3),
    "parsing": (2000, 8, 2e-3),
    "identity": (4000, 48, 2e-3),
    "perceptual": (7500, 5, 3e-3),
}


def _needed(path: Path | None, option: str) -> Path:
    if path is None:
        raise typer.BadParameter("this network needs it", param_hint=option)
    return path


def main(
    name: Annotated[Name, typer.Argument(help="The network.")],
    packs: Annotated[Path, typer.Option(help="Folder of the labelled packs.")],
    cache: Annotated[Path, typer.Option(help="Folder of decoded pictures; unused by parsing.")],
    folder: Annotated[Path, typer.Option(help="Folder of checkpoint, log and weights.")],
    teacher: Annotated[Path | None, typer.Option(help="mobilefacenet_id.onnx (identity).")] = None,
    num_mixes: Annotated[int, typer.Option(help="Mixtures of two faces (identity).")] = 8000,
    features: Annotated[
        Path | None, typer.Option(help="squeezenet1_1_features.npz (perceptual).")
    ] = None,
    heads: Annotated[
        Path | None, typer.Option(help="LPIPS v0.1 heads for SqueezeNet (perceptual).")
    ] = None,
    generated: Annotated[
        list[Path] | None, typer.Option(help="npz of `adversarial_examples` (perceptual).")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Default: the network's own.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Likewise.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Likewise.")] = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
    start: Annotated[Path | None, typer.Option(help="Checkpoint or exported weights.")] = None,
) -> None:
    """Train a face network and export its weights."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    task: Task
    if name == "parsing":
        task = ParsingTask(*read_parsing(packs / "parsing256"))
    elif name == "detector":
        task = DetectorTask(prepare(packs, cache, 128))
    elif name == "landmarks":
        task = LandmarkTask(prepare(packs, cache, 128), blendshape_names(packs))
    elif name == "identity":
        path = _needed(teacher, "--teacher")
        faces = prepare(packs, cache, 128)
        vectors, recipes = teacher_vectors(faces, path, folder, num_mixes, threads)
        frozen = MobileFaceIdentity(path).to(device).eval()
        tuned = TunedGenerator() if device == "cpu" else None
        task = IdentityTask(faces, vectors, recipes, teacher=frozen, generator=tuned)
    else:
        squeeze = SqueezePerceptual(_needed(features, "--features"), _needed(heads, "--heads"))
        pairs = read_generated(generated or [])
        task = PerceptualTask(prepare(packs, cache, 128), squeeze.to(device), pairs)
    own = DEFAULTS[name]
    config = LoopConfig(
        folder=folder, seed=seed, device=device, start=start,
        steps=own[0] if steps is None else steps,
        batch_size=own[1] if batch_size is None else batch_size,
        learning_rate=own[2] if learning_rate is None else learning_rate,
        optimizer="muon" if name == "perceptual" else "adamw",
    )  # fmt: skip
    fit(task, config)


if __name__ == "__main__":
    typer.run(main)
