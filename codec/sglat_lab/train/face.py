"""Train one of the embedded face networks and export its weights:
`python -m sglat_lab.train.face NAME --packs DIR --cache DIR --folder DIR`.

`levels` pretrains the perceptual network level by level, before distances are trained. Each level
is fitted to the teacher's normalised features on the outputs of the levels before it: shallow
problems, solved in minutes where the whole network takes hours. `perceptual --start` continues
from the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import cv2
import numpy as np
import torch
import typer
from scipy.optimize import lsq_linear
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.devices import fast_type
from sglat.networks.embedded_perceptual import PerceptualNetwork, normalised, pooled
from sglat.networks.pixels import from_pixels
from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual
from sglat_lab.train.adversarial_examples import TunedGenerator
from sglat_lab.train.data import blendshape_names, prepare, read_parsing
from sglat_lab.train.faces_aligned import IdentityTask, ParsingTask, teacher_vectors
from sglat_lab.train.faces_detector import DetectorTask
from sglat_lab.train.faces_landmarks import LandmarkTask
from sglat_lab.train.faces_loop import LoopConfig, MuonAdam, Task, export, fit, set_rate
from sglat_lab.train.faces_perceptual import (
    NUM_IMITATED,
    PerceptualTask,
    read_generated,
    repeated,
)

Name = Literal["detector", "landmarks", "parsing", "identity", "perceptual", "levels"]

LEVELS_RATE: Final = 1.2e-2  # learning rate
DEFAULTS: Final[dict[Name, tuple[int, int, float]]] = {  # steps, batch size, learning rate
    "detector": (4000, 16, 2e-3),
    "landmarks": (6000, 32, 2e-3),
    "parsing": (2000, 8, 2e-3),
    "identity": (4000, 48, 2e-3),
    "perceptual": (7500, 5, 3e-3),
}


CHUNK = 50  # pictures in one forward pass
SIZE = 1.5  # target root mean square of raw features: smooth, but far from linear
SIZE_WEIGHT = 0.02
WEIGHT_BOUNDS = (1e-3, 3.0)  # of a channel's squared difference
FITTED_PAIRS = 960  # of pictures, for the channel weights
RELATIVE_FLOOR = 2e-3  # of a level's distance


@dataclass(frozen=True, kw_only=True)
class LevelPlan:
    """Length of the training of one level."""

    pictures: int
    """An eighth of them is held back for the log."""
    batch_size: int
    steps: int


PLANS = (
    LevelPlan(pictures=150, batch_size=12, steps=700),
    LevelPlan(pictures=400, batch_size=24, steps=600),
    LevelPlan(pictures=900, batch_size=48, steps=650),
    LevelPlan(pictures=2000, batch_size=96, steps=900),
)


@dataclass(frozen=True, kw_only=True)
class LevelData:
    """Inputs and target features of a level, `[N, C, h, w]`, bfloat16."""

    inputs: Tensor
    wanted: Tensor
    """The teacher's features of this level, of unit length, channels in the network's order."""
    between: Tensor | None
    """Those after the first of two fire modules, in the teacher's order."""


def scale_to_unit(network: PerceptualNetwork, pictures: Tensor) -> None:
    """Scale random filters so that each gives values of unit deviation on pictures."""

    def scale(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(module, nn.Conv2d)
        deviation = output.std()
        module.weight.div_(deviation)
        assert module.bias is not None
        module.bias.div_(deviation)
        return output / deviation

    hooks = [
        module.register_forward_hook(scale)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network.activations(pictures)
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def level_data(
    network: PerceptualNetwork, task: PerceptualTask, pictures: Tensor, index: int
) -> LevelData:
    """Return inputs and target features of a level, of uint8 pictures `[N, H, W, 3]`."""
    inputs, wanted, between = [], [], []
    for some in pictures.split(CHUNK):
        x = from_pixels(some).contiguous(memory_format=torch.channels_last)
        first, last = task.teacher.levels(x, index)[-1]
        wanted.append(normalised(last, last.shape[1])[:, task.orders[index]].bfloat16())
        if first is not None:
            between.append(normalised(first, first.shape[1]).bfloat16())
        for level in range(index):
            x = network.levels[level](pooled(x) if level else x)
        inputs.append((pooled(x) if index else x).bfloat16())
    return LevelData(
        inputs=torch.cat(inputs), wanted=torch.cat(wanted),
        between=torch.cat(between) if between else None,
    )  # fmt: skip


def train_level(
    block: nn.Module, data: LevelData, weights: Tensor, plan: LevelPlan, rate: float, seed: int
) -> float:
    """Train one level; return its unexplained share of the held-back variance.

    Args:
        block: the level.
        data: its pictures.
        weights: of the channels, `[1, C, 1, 1]`.
        plan: length of the training.
        rate: highest learning rate, after 20 steps of warm-up; then a cosine.
        seed: of the order of the pictures.
    """
    held = len(data.inputs) // 8
    generator = np.random.default_rng(seed)
    optimizer = MuonAdam(block.parameters(), lr=rate)
    spread = _spread(data.wanted[:held], weights)
    dtype = fast_type(torch.device("cpu"))
    for step in range(plan.steps):
        falling = 0.02 + 0.49 * (1 + math.cos(math.pi * step / plan.steps))
        set_rate(optimizer, rate * min(1, (step + 1) / 20) * falling)
        chosen = generator.choice(np.arange(held, len(data.inputs)), plan.batch_size, False)
        pick = torch.from_numpy(chosen)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            missed, size = _missed(block, data, pick, weights)
        loss = missed / spread + SIZE_WEIGHT * torch.log(size / SIZE).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = block(data.inputs[:held].float())
    off = (normalised(found, found.shape[1]) - data.wanted[:held].float()).square()
    return float((off * weights).sum(1).mean() / spread)


def _missed(
    block: nn.Module, data: LevelData, pick: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the weighted squared error and the root mean square of the raw features."""
    x = data.inputs[pick].float()  # stored in bfloat16
    between = torch.zeros(())
    if data.between is not None:
        assert isinstance(block, nn.Sequential)
        x = block[0](x)
        off = normalised(x, x.shape[1]).float() - data.between[pick].float()
        even = torch.full_like(weights[:, :1], 1 / off.shape[1])
        ratio = _spread(data.wanted, weights) / _spread(data.between, even)
        between = 0.5 * ratio * off.square().mean()
        found = block[1](x)
    else:
        found = block(x)
    off = normalised(found, found.shape[1]).float() - data.wanted[pick].float()
    return (off.square() * weights).sum(1).mean() + between, found.float().square().mean().sqrt()


def _spread(features: Tensor, weights: Tensor) -> Tensor:
    some = features[:CHUNK].float()
    return ((some - some.mean((0, 2, 3), keepdim=True)).square() * weights).sum(1).mean()


@torch.no_grad()
def fit_weights(network: PerceptualNetwork, task: PerceptualTask, pairs: int, seed: int) -> None:
    """Fit the channel weights to the teacher's distances by least squares.

    Args:
        network: its features are unchanged.
        task: has the teacher and draws the pairs.
        pairs: number of pairs, four samples each: the quarters of the picture.
        seed: of the pairs.
    """
    generator = np.random.default_rng(seed)
    squares: list[list[Tensor]] = [[] for _ in network.log_weights]
    wanted: list[list[Tensor]] = [[] for _ in network.log_weights]
    for _ in range(pairs // 16):
        batch = task.batch(generator, 4)
        first, second = from_pixels(batch["reference"]), from_pixels(batch["variant"])
        mine = repeated(network.features(first)), network.features(second)
        maps = task.teacher_maps(first, second)
        for level, (one, other, true) in enumerate(zip(*mine, maps, strict=True)):
            quarters = functional.adaptive_avg_pool2d((one - other).square(), 2)
            squares[level].append(quarters.permute(0, 2, 3, 1).flatten(0, 2))
            wanted[level].append(functional.adaptive_avg_pool2d(true[:, None], 2).flatten())
    for level, logarithm in enumerate(network.log_weights):
        target = torch.cat(wanted[level]).double().numpy()
        share = 1 / (target + RELATIVE_FLOOR)  # relative errors
        rows = torch.cat(squares[level]).double().numpy() * share[:, None]
        found = lsq_linear(rows, target * share, bounds=WEIGHT_BOUNDS).x
        logarithm.copy_(torch.from_numpy(np.log(np.expm1(found))))


def draw_pictures(task: PerceptualTask, count: int, seed: int) -> Tensor:
    """Return training pictures, uint8 `[N, 96, 96, 3]`: a fifth references, the rest variants."""
    generator = np.random.default_rng(seed)
    drawn: list[Tensor] = []
    while sum(map(len, drawn)) < count:
        batch = task.batch(generator, 4)
        drawn += [batch["reference"], batch["variant"]]
    return torch.cat(drawn)[:count]


def pretrain_levels(task: PerceptualTask, output: Path, *, learning_rate: float, seed: int) -> None:
    """Train the levels of the perceptual network from random weights and write them."""
    torch.manual_seed(seed)
    network = PerceptualNetwork()
    scale_to_unit(network, from_pixels(draw_pictures(task, 16, 5)))
    for index in range(NUM_IMITATED):
        pictures = draw_pictures(task, PLANS[index].pictures, 100 + index)
        data = level_data(network, task, pictures, index)
        weights, plan = task.weights[index], PLANS[index]
        missed = train_level(network.levels[index], data, weights, plan, learning_rate, seed)
        print(f"level {index}: {missed:.3f} of the variance missed", flush=True)
    fit_weights(network, task, FITTED_PAIRS, seed)
    export(network, output)


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
        Path | None, typer.Option(help="squeezenet1_1_features.npz (perceptual, levels).")
    ] = None,
    heads: Annotated[
        Path | None, typer.Option(help="LPIPS v0.1 heads for SqueezeNet (perceptual, levels).")
    ] = None,
    generated: Annotated[
        list[Path] | None, typer.Option(help="npz of `adversarial_examples` (perceptual, levels).")
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
        if name == "levels":
            rate = LEVELS_RATE if learning_rate is None else learning_rate
            pretrain_levels(task, folder / "levels.safetensors", learning_rate=rate, seed=seed)
            return
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
