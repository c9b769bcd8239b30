"""Train the embedded perceptual network to rank distortions as LPIPS with SqueezeNet does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.training.data import Faces, prepare
from sglat.training.faces_augment import Picture, cover, cut
from sglat.training.faces_landmarks import to_input
from sglat.training.faces_loop import Batch, LoopConfig, fit
from sglat.training.teachers import SqueezePerceptual, load_lpips_heads

VARIANTS = 4  # distorted pictures a reference
WEAK = ("shift", "pixelate", "warp")  # shown more often: ranked worst, or nearest to those
WINDOW = 96  # pixels of the 128 that a training step looks at; distances are means over places
Random = np.random.Generator


def _blur(picture: Picture, strength: float, generator: Random) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.3 + 3.5 * strength), np.uint8)


def _noise(picture: Picture, strength: float, generator: Random) -> Picture:
    noise = generator.standard_normal(picture.shape, np.float32)
    if generator.random() < 0.3:  # film grain rather than sensor noise
        noise = 3 * np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.0), np.float32)
    return np.clip(picture + (1 + 35 * strength) * noise, 0, 255).astype(np.uint8)


def _compression(picture: Picture, strength: float, generator: Random) -> Picture:
    kind = (".jpg", cv2.IMWRITE_JPEG_QUALITY)
    if generator.random() < 0.4:
        kind = (".webp", cv2.IMWRITE_WEBP_QUALITY)
    encoded = cv2.imencode(kind[0], picture, [kind[1], int(90 - 87 * strength)])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _shift(picture: Picture, strength: float, generator: Random) -> Picture:
    angle = generator.uniform(0, 2 * np.pi)
    reach = 0.3 + 6 * strength
    turn, zoom = generator.normal(0, 2 * strength), np.exp(generator.normal(0, 0.03 * strength))
    matrix = np.asarray(cv2.getRotationMatrix2D((64.0, 64.0), turn, zoom), np.float64)
    matrix[:, 2] += reach * np.array((np.cos(angle), np.sin(angle)))
    size = picture.shape[:2]
    return np.asarray(
        cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REFLECT_101), np.uint8
    )


def _colour(picture: Picture, strength: float, generator: Random) -> Picture:
    levels = np.linspace(0, 1, 256)[:, None]
    gamma = np.exp(strength * generator.normal(0, 0.5))
    gain = np.exp(strength * (generator.normal(0, 0.3) + generator.normal(0, 0.2, (1, 3))))
    table = 0.5 + (levels**gamma - 0.5) * gain + strength * generator.normal(0, 0.12, (1, 3))
    table8 = np.clip(255 * table, 0, 255).astype(np.uint8).reshape(1, 256, 3)
    return np.asarray(cv2.LUT(picture, table8), np.uint8)


def _warp(picture: Picture, strength: float, generator: Random) -> Picture:
    size = picture.shape[0]
    coarse = generator.standard_normal((2, int(generator.integers(3, 9)), 8)).astype(np.float32)
    field = [cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    reach = np.float32(0.3 + 4 * strength)
    x, y = x + reach * field[0], y + reach * field[1]
    return np.asarray(
        cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.uint8
    )


def _pixelate(picture: Picture, strength: float, generator: Random) -> Picture:
    size = picture.shape[0]
    small = int(size / (1.2 + 6 * strength))
    reduced = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    way = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(generator.integers(3))]
    return np.asarray(cv2.resize(reduced, (size, size), interpolation=way), np.uint8)


DISTORTIONS: dict[str, Callable[[Picture, float, Random], Picture]] = {
    "blur": _blur,
    "noise": _noise,
    "compression": _compression,
    "shift": _shift,
    "colour": _colour,
    "warp": _warp,
    "pixelate": _pixelate,
}


class PerceptualTask:
    """Faces, distorted versions of them, generator outputs for them, and other faces."""

    name = "perceptual"

    def __init__(
        self,
        faces: Faces,
        teacher: SqueezePerceptual,
        generated: tuple[NDArray[np.int64], NDArray[np.uint8]] | None,
    ) -> None:
        """Take generator outputs as row numbers `[M]` and pictures `[M, 128, 128, 3]`."""
        self.faces, self.teacher = faces, teacher.eval().requires_grad_(False)
        self.train_rows = faces.rows(split="train")
        self.val_rows = faces.rows(split="val")
        self.generated: dict[int, list[Picture]] = {}
        for row, picture in zip(*generated, strict=True) if generated is not None else ():
            self.generated.setdefault(int(row), []).append(picture)
        train, val = set(self.train_rows.tolist()), set(self.val_rows.tolist())
        self.generated_train = np.array([r for r in self.generated if r in train], np.int64)
        self.generated_val = np.array([r for r in self.generated if r in val], np.int64)

    def build(self) -> nn.Module:
        """Return the untrained network."""
        return PerceptualNetwork()

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return references `[N, 96, 96, 3]` and variants `[N * 4, 96, 96, 3]`, uint8."""
        references: list[Picture] = []
        variants: list[Picture] = []
        for _ in range(size):
            use = generator.random() < 0.5 and len(self.generated_train) > 0
            row = int(generator.choice(self.generated_train if use else self.train_rows))
            reference = np.asarray(self.faces.images[row])
            made = [self._training_variant(row, generator) for _ in range(VARIANTS - use)]
            if use:
                options = self.generated[row]
                made.append(options[int(generator.integers(len(options)))])
            turn = int(generator.integers(3))  # seen as it is, mirrored, or enlarged by half
            matrix = np.array(((1.5, 0, -32), (0, 1.5, -32)) if turn == 2 else np.eye(3)[:2])
            if turn == 1:
                matrix = np.array(((-1.0, 0, 127), (0, 1, 0)))
            for picture, into in ((reference, references), *((v, variants) for v in made)):
                same = np.random.default_rng(row)  # one border for all
                into.append(cut(picture, matrix, 128, same) if turn else picture)
        top, left = generator.integers(0, 128 - WINDOW + 1, 2)
        window = (slice(None), slice(top, top + WINDOW), slice(left, left + WINDOW))
        return {
            "reference": torch.from_numpy(np.stack(references)[window].copy()),
            "variant": torch.from_numpy(np.stack(variants)[window].copy()),
        }

    def _training_variant(self, row: int, generator: np.random.Generator) -> Picture:
        """Return a version as for validation, or one of the kinds that are ranked worst."""
        kind = generator.random()
        if kind < 0.12:
            name = WEAK[int(generator.integers(len(WEAK)))]
            picture = np.asarray(self.faces.images[row])
            return DISTORTIONS[name](picture, float(generator.random()), generator)
        if kind < 0.18:
            return np.asarray(self.faces.images[int(generator.choice(self.train_rows))])
        return self.variant(row, generator, self.train_rows)[0]

    def variant(
        self, row: int, generator: np.random.Generator, rows: NDArray[np.int64]
    ) -> tuple[Picture, str]:
        """Return a distorted version of a face, and what was done to it."""
        picture = np.asarray(self.faces.images[row])
        kind = generator.random()
        if kind < 0.04:
            return np.asarray(self.faces.images[int(generator.choice(rows))]), "other"
        if kind < 0.1:
            other = np.asarray(self.faces.images[int(generator.choice(rows))])
            share = generator.uniform(0.4, 0.97)
            mixed = cv2.addWeighted(picture, share, other, 1 - share, 0)
            return np.asarray(mixed, np.uint8), "mixed"
        if kind < 0.14:
            return cover(picture, generator), "covered"
        count = 1 if kind < 0.75 else 2
        names = generator.choice(list(DISTORTIONS), count, replace=False)
        for name in names:
            picture = DISTORTIONS[name](picture, float(generator.random() ** 1.5), generator)
        return picture, "+".join(names) if count == 1 else "two"

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return how far distances are off in logarithms: in all, by level, and by place."""
        assert isinstance(network, PerceptualNetwork)
        reference, variant = to_input(batch["reference"]), to_input(batch["variant"])
        with torch.no_grad():
            levels = self.teacher.features(reference), self.teacher.features(variant)
            wanted = _four(self.teacher.maps(_repeated(levels[0]), levels[1]))
        found = network.maps(_repeated(network.features(reference)), network.features(variant))
        off = _log_off(_means(found).sum(0), _means(wanted).sum(0), 1e-3)
        by_level = _log_off(_means(found), _means(wanted), 1e-3)
        places = [
            _log_off(_pooled(one), _pooled(other), 4e-3)
            for one, other in zip(found, wanted, strict=True)
        ]
        by_place = torch.stack(places).mean()
        loss = off + 0.5 * by_level + 0.25 * by_place
        parts = {"log_off": off, "level_off": by_level, "place_off": by_place}
        return loss, {key: float(value.detach()) for key, value in parts.items()}

    def _teacher(self, reference: Tensor, variant: Tensor) -> Tensor:
        times = len(variant) // len(reference)
        one = [m.repeat_interleave(times, 0) for m in self.teacher.features(reference)]
        return self.teacher.distance(one, self.teacher.features(variant), use_heads=True)

    @torch.inference_mode()
    def validate(self, network: nn.Module, *, seed: int = 9) -> dict[str, float]:
        """Return the rank correlation with the teacher over all distortions and over each."""
        assert isinstance(network, PerceptualNetwork)
        generator = np.random.default_rng(seed)
        kinds, found, wanted = [], [], []
        for index in range(320):
            from_generator = index % 5 == 0 and len(self.generated_val) > 0
            row = int(generator.choice(self.generated_val if from_generator else self.val_rows))
            picture, kind = self.variant(row, generator, self.val_rows)
            if from_generator:
                picture, kind = self.generated[row][0], "generator"
            reference = to_input(torch.from_numpy(np.asarray(self.faces.images[row])[None]))
            variant = to_input(torch.from_numpy(picture[None]))
            kinds.append(kind)
            found.append(float(network(reference, variant)))
            wanted.append(float(self._teacher(reference, variant)))
        figures = {"spearman": float(spearmanr(found, wanted).statistic)}
        for kind in sorted(set(kinds)):
            chosen = np.array(kinds) == kind
            if chosen.sum() >= 12:
                rank = spearmanr(np.array(found)[chosen], np.array(wanted)[chosen]).statistic
                figures[f"spearman_{kind}"] = float(rank)
        return figures


def _repeated(maps: list[Tensor]) -> list[Tensor]:
    return [m.repeat_interleave(VARIANTS, 0) for m in maps]


def _four(maps: list[Tensor]) -> list[Tensor]:
    """Return the teacher's seven maps as four, those of its smallest size together."""
    return [*maps[:3], torch.stack(maps[3:]).sum(0)]


def _means(maps: list[Tensor]) -> Tensor:
    """Return the mean of each map, `[levels, N]`."""
    return torch.stack([m.float().mean((1, 2)) for m in maps])


def _pooled(maps: Tensor) -> Tensor:
    """Return maps `[N, h, w]` at 12 x 12 places, or 6 x 6 where there are fewer."""
    size = 12 if maps.shape[-1] > 10 else 6
    pooled: Tensor = functional.adaptive_avg_pool2d(maps.float()[:, None], size)
    return pooled


def _log_off(found: Tensor, wanted: Tensor, floor: float) -> Tensor:
    return (torch.log(found + floor) - torch.log(wanted + floor)).abs().mean()


def main(
    packs: Annotated[Path, typer.Option(help="Folder of the labelled packs.")],
    features: Annotated[Path, typer.Option(help="squeezenet1_1_features.npz")],
    heads: Annotated[Path, typer.Option(help="The published LPIPS v0.1 heads for SqueezeNet.")],
    cache: Annotated[Path, typer.Option(help="Where decoded pictures are kept.")],
    folder: Annotated[Path, typer.Option(help="Checkpoint, log and weights go here.")],
    generated: Annotated[
        Path | None, typer.Option(help="npz: `rows` [M] and their generator outputs `pictures`.")
    ] = None,
    steps: int = 1600,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
    start: Path | None = None,
) -> None:
    """Train the perceptual network and export its weights."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    teacher = SqueezePerceptual(features, load_lpips_heads(heads)).to(device)
    pairs = None
    if generated is not None:
        with np.load(generated) as stored:
            pairs = stored["rows"].astype(np.int64), stored["pictures"]
    config = LoopConfig(
        folder=folder, steps=steps, batch_size=batch_size, learning_rate=learning_rate,
        seed=seed, device=device, start=start, weight_decay=0.0,
    )  # fmt: skip
    fit(PerceptualTask(prepare(packs, cache, 128), teacher, pairs), config)


if __name__ == "__main__":
    typer.run(main)
