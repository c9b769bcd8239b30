"""Training task of the embedded perceptual network: distances and features of LPIPS-squeeze."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_perceptual import COMPARED, PerceptualNetwork, normalised
from sglat.networks.pixels import from_pixels
from sglat_lab.measure.teachers import SqueezePerceptual
from sglat_lab.train.adversarial_examples import fooled
from sglat_lab.train.data import Faces
from sglat_lab.train.faces_augment import Picture, cover, cut
from sglat_lab.train.faces_loop import Batch

VARIANTS = 4  # distorted pictures a reference
WEAK = ("shift", "pixelate", "warp")  # oversampled: the worst rank correlations
WINDOW = 96  # side of the training crop of the 128 pixels; distances are means over places
NUM_IMITATED = 4  # levels fitted to the teacher's features
HARD_SHARE = 0.3  # of the steps have adversarial variants
EVEN_SHARE = 0.3  # of the channels' weight, spread evenly; later layers need all channels
CHANGE_FLOOR = 2e-3  # of the weighted change of a pair, added to its error's denominator
Random = np.random.Generator
Pairs = tuple[NDArray[np.int64], NDArray[np.uint8]]  # rows [M], outputs [M, 128, 128, 3] for them


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
    """Faces with distorted versions, generator outputs, and other faces."""

    name = "perceptual"

    def __init__(
        self,
        faces: Faces,
        teacher: SqueezePerceptual,
        generated: list[Pairs],
    ) -> None:
        """Take generator outputs; their files are drawn with equal probability."""
        self.faces, self.teacher = faces, teacher.eval().requires_grad_(False)
        assert teacher.heads is not None, "the teacher needs its heads"
        heads = teacher.heads[:NUM_IMITATED]
        # The network compares its first channels: the teacher's by descending weight.
        self.orders = [head.flatten().argsort(descending=True) for head in heads]
        weights = channel_weights(heads)
        self.weights = [w[:, order] for w, order in zip(weights, self.orders, strict=True)]
        self.train_rows = faces.rows(split="train")
        self.val_rows = faces.rows(split="val")
        train, val = (set(rows.tolist()) for rows in (self.train_rows, self.val_rows))
        self.generated = [
            [(int(row), picture) for row, picture in zip(*pairs, strict=True) if int(row) in train]
            for pairs in generated
        ]
        self.generated_val = {
            int(row): picture
            for pairs in generated[:1]
            for row, picture in zip(*pairs, strict=True)
            if int(row) in val
        }

    def build(self) -> nn.Module:
        """Return the untrained network."""
        return PerceptualNetwork()

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return references `[N, 96, 96, 3]` and variants `[N * 4, 96, 96, 3]`, uint8."""
        references: list[Picture] = []
        variants: list[Picture] = []
        for _ in range(size):
            use = generator.random() < 0.5 and len(self.generated) > 0
            row = int(generator.choice(self.train_rows))
            if use:
                source = self.generated[int(generator.integers(len(self.generated)))]
                row, output = source[int(generator.integers(len(source)))]
            reference = np.asarray(self.faces.images[row])
            made = [self._training_variant(row, generator) for _ in range(VARIANTS - use)]
            if use:
                made.append(output)
            turn = int(generator.integers(3))  # as it is, mirrored, or enlarged by half
            matrix = np.array(((1.5, 0, -32), (0, 1.5, -32)) if turn == 2 else np.eye(3)[:2])
            if turn == 1:
                matrix = np.array(((-1.0, 0, 127), (0, 1, 0)))
            relit, colours = generator.random() < 0.3, int(generator.integers(1 << 31))
            for picture, into in ((reference, references), *((v, variants) for v in made)):
                same = np.random.default_rng(colours)  # the same border and light for all
                view = cut(picture, matrix, 128, same) if turn else picture
                into.append(_colour(view, 0.7, same) if relit else view)
        top, left = generator.integers(0, 128 - WINDOW + 1, 2)
        window = (slice(None), slice(top, top + WINDOW), slice(left, left + WINDOW))
        return {
            "reference": torch.from_numpy(np.stack(references)[window].copy()),
            "variant": torch.from_numpy(np.stack(variants)[window].copy()),
            "hard": torch.tensor(
                int(generator.integers(1, 1 << 31)) if generator.random() < HARD_SHARE else 0
            ),
        }

    def _training_variant(self, row: int, generator: np.random.Generator) -> Picture:
        """Return a version as for validation, or an oversampled kind."""
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
        """Return a distorted version of a face, and the kind of distortion."""
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
        """Return log errors of distances and errors of features and their changes."""
        assert isinstance(network, PerceptualNetwork)
        reference, variant = from_pixels(batch["reference"]), from_pixels(batch["variant"])
        if int(batch["hard"]):
            variant = _with_adversarial(network, reference, variant, int(batch["hard"]))
        with torch.no_grad():
            levels = repeated(self.teacher.features(reference)), self.teacher.features(variant)
            wanted = _five(self.teacher.maps(*levels))
        raw = repeated(network.activations(reference)), network.activations(variant)
        compared = [[normalised(x, c) for x, c in zip(r, COMPARED, strict=True)] for r in raw]
        found = network.maps(compared[0], compared[1])
        off = _log_off(_means(found).sum(0), _means(wanted).sum(0), 1e-3)
        by_level = _log_off(_means(found), _means(wanted), 1e-3)
        places = [
            _log_off(_coarse(one), _coarse(other), 4e-3)
            for one, other in zip(found, wanted, strict=True)
        ]
        by_place = torch.stack(places).mean()
        mine = _imitated(raw[0]), _imitated(raw[1])
        true = self._ordered(_imitated(levels[0])), self._ordered(_imitated(levels[1]))
        missed = unexplained(mine[1], true[1], self.weights)
        change = unexplained_change(mine, true, self.weights)
        loss = off + 0.5 * by_level + 0.25 * by_place + missed + change
        parts = {
            "log_off": off, "level_off": by_level, "place_off": by_place,
            "feature_off": missed, "change_off": change,
        }  # fmt: skip
        return loss, {key: float(value.detach()) for key, value in parts.items()}

    @torch.no_grad()
    def teacher_maps(self, reference: Tensor, variant: Tensor) -> list[Tensor]:
        """Return the teacher's distances of each variant by place, one map a level."""
        return _five(
            self.teacher.maps(
                repeated(self.teacher.features(reference)), self.teacher.features(variant)
            )
        )

    def _ordered(self, features: list[Tensor]) -> list[Tensor]:
        return [f[:, order] for f, order in zip(features, self.orders, strict=True)]

    @torch.inference_mode()
    def validate(self, network: nn.Module, *, seed: int = 9) -> dict[str, float]:
        """Return the rank correlation with the teacher, over all distortions and for each."""
        assert isinstance(network, PerceptualNetwork)
        generator = np.random.default_rng(seed)
        kinds, found, wanted = [], [], []
        for index in range(320):
            from_generator = index % 5 == 0 and len(self.generated_val) > 0
            rows = np.array(list(self.generated_val)) if from_generator else self.val_rows
            row = int(generator.choice(rows))
            picture, kind = self.variant(row, generator, self.val_rows)
            if from_generator:
                picture, kind = self.generated_val[row], "generator"
            reference = from_pixels(self.faces.images[row][None])
            variant = from_pixels(picture[None])
            kinds.append(kind)
            found.append(float(network(reference, variant)))
            wanted.append(float(self.teacher(reference, variant, use_heads=True)))
        figures = {"spearman": float(spearmanr(found, wanted).statistic)}
        for kind in sorted(set(kinds)):
            chosen = np.array(kinds) == kind
            if chosen.sum() >= 12:
                rank = spearmanr(np.array(found)[chosen], np.array(wanted)[chosen]).statistic
                figures[f"spearman_{kind}"] = float(rank)
        return figures


def channel_weights(heads: Sequence[Tensor]) -> list[Tensor]:
    """Return weights `[1, C, 1, 1]` that sum to 1: heads blended with even weights."""
    return [
        (1 - EVEN_SHARE) * head / head.sum() + EVEN_SHARE / head.numel()
        for head in (h.clamp(min=0) for h in heads)
    ]


def unexplained(
    found: Sequence[Tensor], wanted: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """Return the share of the variance of `wanted` that `found` misses, mean over the levels.

    Args:
        found: `[N, C, h, w]`, one a level.
        wanted: of the same shapes.
        weights: of the channels, `[1, C, 1, 1]`.
    """
    shares = []
    for one, other, weight in zip(found, wanted, weights, strict=True):
        spread = (other - other.mean((0, 2, 3), keepdim=True)).square() * weight
        shares.append(((one - other).square() * weight).sum() / spread.sum())
    return torch.stack(shares).mean()


def unexplained_change(
    found: tuple[Sequence[Tensor], Sequence[Tensor]],
    wanted: tuple[Sequence[Tensor], Sequence[Tensor]],
    weights: Sequence[Tensor],
) -> Tensor:
    """Return the share of each pair's change of features that is missed, mean over all.

    Args:
        found: features of the first and of the second pictures, `[N, C, h, w]` a level.
        wanted: those that are to be found.
        weights: of the channels, `[1, C, 1, 1]`.
    """
    shares = []
    for level, weight in enumerate(weights):
        change = wanted[1][level] - wanted[0][level]
        off = found[1][level] - found[0][level] - change
        missed = (off.square() * weight).sum(1).mean((1, 2))
        size = (change.square() * weight).sum(1).mean((1, 2))
        shares.append((missed / (size + CHANGE_FLOOR * weight.max())).mean())
    return torch.stack(shares).mean()


def repeated(maps: list[Tensor]) -> list[Tensor]:
    """Return references' maps as often as each has variants."""
    return [m.repeat_interleave(VARIANTS, 0) for m in maps]


def _five(maps: list[Tensor]) -> list[Tensor]:
    """Return the teacher's seven maps as five, the last three together."""
    return [*maps[:4], torch.stack(maps[4:]).sum(0)]


def _imitated(activations: list[Tensor]) -> list[Tensor]:
    """Return unit vectors of all channels at the imitated levels.

    Of the two finest levels every second place is taken.
    """
    thinned = [x[..., ::2, ::2] if i < 2 else x for i, x in enumerate(activations)]
    return [normalised(x, x.shape[1]).float() for x in thinned[:NUM_IMITATED]]


def _with_adversarial(
    network: PerceptualNetwork, reference: Tensor, variant: Tensor, seed: int
) -> Tensor:
    """Return the variants with the last of each reference made adversarial."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        target = network.features(reference)
    steps = int(generator.integers(1, 7))
    hard = fooled(
        variant[VARIANTS - 1 :: VARIANTS], reference,
        lambda pictures: network.distance(network.features(pictures), target).float(),
        generator, steps=steps,
    )  # fmt: skip
    variant = variant.clone()
    variant[VARIANTS - 1 :: VARIANTS] = hard
    return variant


def _means(maps: list[Tensor]) -> Tensor:
    """Return the mean of each map, `[levels, N]`."""
    return torch.stack([m.float().mean((1, 2)) for m in maps])


def _coarse(maps: Tensor) -> Tensor:
    """Return maps `[N, h, w]` at 12 x 12 places, or at all where there are fewer."""
    pooled: Tensor = functional.adaptive_avg_pool2d(maps.float()[:, None], min(12, maps.shape[-1]))
    return pooled


def _log_off(found: Tensor, wanted: Tensor, floor: float) -> Tensor:
    return (torch.log(found + floor) - torch.log(wanted + floor)).abs().mean()


def read_generated(paths: list[Path]) -> list[Pairs]:
    """Return generator outputs of files that `adversarial_examples` wrote."""
    stored = [np.load(path) for path in paths]
    return [(np.asarray(s["rows"], np.int64), np.asarray(s["pictures"], np.uint8)) for s in stored]
