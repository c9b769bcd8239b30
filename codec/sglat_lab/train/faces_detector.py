"""Training task of the embedded face detector: faces composed into faceless backgrounds."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_nets import (
    STRIDE,
    DetectorNetwork,
    DetectorOutput,
    boxes_of,
    candidates,
    overlap_of,
)
from sglat.networks.pixels import from_pixels
from sglat_lab.train.data import Faces
from sglat_lab.train.faces_augment import Picture, degrade, scenery, shuffled
from sglat_lab.train.faces_loop import Batch

INPUT_SIZE = 256
SMALLEST = 10.0  # pixels of the input: 40 px in a frame of 1024 px
MAX_FACES = 4
CENTRE_SHARE = 0.25  # share of the box around its centre whose cells are positive


class DetectorTask:
    """Pictures of 256 px with none to four faces."""

    name = "detector"

    def __init__(self, faces: Faces) -> None:
        self.faces = faces
        self.points = faces.labels["landmarks478"].astype(np.float32)
        self.train_rows = faces.rows(split="train")
        self.val_rows = faces.rows(split="val")

    def build(self) -> nn.Module:
        """Return the untrained network, biased to find no faces."""
        network = DetectorNetwork(norm=True)
        nn.init.normal_(network.head.weight, std=0.01)
        with torch.no_grad():
            assert network.head.bias is not None
            network.head.bias.copy_(torch.tensor((-4.0, 1.0, 1.0, 1.0, 1.0)))
        return network

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return pictures, boxes `[N, 4, 4]` in pixels and which of them are faces `[N, 4]`."""
        return _stack([self.scene(generator, self.train_rows) for _ in range(size)])

    def scene(
        self, generator: np.random.Generator, rows: NDArray[np.int64]
    ) -> tuple[Picture, NDArray[np.float32]]:
        """Return one composed picture and its boxes `[F, 4]`."""
        canvas = self._background(generator, rows)
        count = int(generator.choice((0, 1, 2, 3, 4), p=(0.08, 0.6, 0.17, 0.09, 0.06)))
        boxes: list[NDArray[np.float32]] = []
        for _ in range(int(generator.integers(0, 3)) if generator.random() < 0.5 else 0):
            self._paste(canvas, generator, rows, boxes, is_face=False)
        for _ in range(count):
            self._paste(canvas, generator, rows, boxes, is_face=True)
        return degrade(canvas, generator), np.array(boxes, np.float32).reshape(-1, 4)

    def _background(self, generator: np.random.Generator, rows: NDArray[np.int64]) -> Picture:
        """Return scenery, tiles of pictures, or the strip beside a face drawn large."""
        kind = generator.random()
        picture = np.asarray(self.faces.images[int(generator.choice(rows))])
        if kind < 0.45:
            return scenery(INPUT_SIZE, generator).copy()
        if kind < 0.65:
            tiles = cv2.resize(shuffled(picture, generator), (INPUT_SIZE, INPUT_SIZE))
            return np.array(tiles, np.uint8)
        width = int(generator.integers(14, 26))  # the outer strips of a crop are background or hair
        height = int(generator.integers(40, 128))
        left = 0 if generator.random() < 0.5 else 128 - width
        top = int(generator.integers(0, 128 - height + 1))
        strip = picture[top : top + height, left : left + width]
        large = cv2.resize(strip, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_CUBIC)
        return np.array(large, np.uint8)

    def _paste(
        self,
        canvas: Picture,
        generator: np.random.Generator,
        rows: NDArray[np.int64],
        boxes: list[NDArray[np.float32]],
        *,
        is_face: bool,
    ) -> None:
        """Blend one face, or one faceless patch of the same outline, into the canvas in place."""
        row = int(generator.choice(rows))
        picture, points = np.asarray(self.faces.images[row]), self.points[row] * 128
        if generator.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            points = points * (-1, 1) + (128, 0)
        extent = float((points.max(0) - points.min(0)).max())
        largest = INPUT_SIZE * (0.95 if not boxes else 0.4)
        wanted = SMALLEST * (largest / SMALLEST) ** (generator.random() ** 0.8)
        turn = generator.normal(0, 12) if generator.random() < 0.85 else generator.uniform(-40, 40)
        middle = (points.min(0) + points.max(0)) / 2
        matrix = cv2.getRotationMatrix2D(
            (float(middle[0]), float(middle[1])), turn, wanted / extent
        )
        margin = min(0.42 * wanted, 0.45 * INPUT_SIZE)
        place = generator.uniform(margin, INPUT_SIZE - margin, 2)
        matrix[:, 2] += place - middle
        placed = points @ matrix[:, :2].T + matrix[:, 2]
        box = np.concatenate([placed.min(0), placed.max(0)]).astype(np.float32)
        if any(overlap_of(torch.from_numpy(box), torch.from_numpy(b)) > 0.02 for b in boxes):
            return
        if not is_face:
            picture = shuffled(picture, generator) if generator.random() < 0.7 else _turned(picture)
        if generator.random() < 0.5:
            picture = degrade(picture, generator, 0.6)
        mask = _outline(points, generator)
        # shrink in two steps: filtering first keeps small faces free of aliasing
        shrink = max(1.0, extent / wanted)
        if shrink > 1.5:
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.45 * shrink), np.uint8)
        size = (INPUT_SIZE, INPUT_SIZE)
        warped = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(mask, matrix, size)[..., None]
        canvas[:] = (alpha * warped + (1 - alpha) * canvas).astype(np.uint8)
        if is_face:
            boxes.append(box)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return focal loss of the scores plus overlap loss of the boxes of the faces' cells."""
        out: DetectorOutput = network(from_pixels(batch["picture"]))
        heat, owner = targets(batch["boxes"], batch["is_face"], out.score_logits.shape[1:])
        count = batch["is_face"].sum().clamp(min=1)
        score = _focal(out.score_logits.float(), heat) / count
        cells = owner >= 0
        predicted = boxes_of(out.reach.float()).permute(0, 2, 3, 1)[cells]  # [P, 4]
        picture_index = torch.nonzero(cells)[:, 0]
        wanted = batch["boxes"][picture_index, owner[cells]]
        overlap = _overlap_loss(predicted, wanted)
        loss = score + 2 * overlap
        parts = {"loss": loss, "score": score, "overlap": overlap}
        return loss, {key: float(value.detach()) for key, value in parts.items()}

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return recall at overlap 0.7, false finds a picture, and the mean overlap of finds."""
        generator = np.random.default_rng(5)
        scenes = [self.scene(generator, self.val_rows) for _ in range(160)]
        found = total = false = 0
        overlaps: list[float] = []
        for start in range(0, len(scenes), 32):
            part = scenes[start : start + 32]
            pictures = torch.from_numpy(np.stack([picture for picture, _ in part]))
            results = candidates(network(from_pixels(pictures)), threshold=0.4)
            for rows, (_, boxes) in zip(results, part, strict=True):
                total += len(boxes)
                wanted = torch.from_numpy(boxes)
                best = [max([overlap_of(r, b) for b in wanted], default=0.0) for r in rows]
                false += sum(value < 0.3 for value in best)
                hits = [max([overlap_of(r, b) for r in rows], default=0.0) for b in wanted]
                found += sum(value >= 0.7 for value in hits)
                overlaps += [value for value in hits if value >= 0.3]
        return {
            "recall": found / max(total, 1),
            "false": false / len(scenes),
            "overlap": float(np.mean(overlaps)) if overlaps else 0.0,
        }


def targets(boxes: Tensor, is_face: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return target scores `[N, h, w]` and the face assigned to each cell, -1 for none."""
    height, width = shape
    x = STRIDE * (torch.arange(width, device=boxes.device) + 0.5)
    y = STRIDE * (torch.arange(height, device=boxes.device) + 0.5)
    left, top, right, bottom = boxes.unbind(2)
    wide, high = (right - left).clamp(min=1), (bottom - top).clamp(min=1)
    across = (x[None, None] - ((left + right) / 2)[..., None]) / wide[..., None]  # [N, F, w]
    down = (y[None, None] - ((top + bottom) / 2)[..., None]) / high[..., None]
    distance = across[:, :, None].square() + down[..., None].square()  # [N, F, h, w]
    # the nearest cell is always positive, however small the face
    distance = torch.where(is_face[..., None, None] > 0, distance, torch.inf)
    nearest = distance.flatten(2).argmin(2)
    is_nearest = functional.one_hot(nearest, height * width).view_as(distance) > 0
    is_nearest &= is_face[..., None, None] > 0
    spread = torch.maximum(torch.full_like(wide, 0.12), 0.4 * STRIDE / wide)[..., None, None]
    heat = torch.exp(-distance / (2 * spread.square()))
    heat = torch.where(is_nearest, 1.0, heat)
    distance = torch.where(is_nearest, 0.0, distance)
    closest, owner = distance.min(1)
    owner = torch.where(closest.sqrt() <= CENTRE_SHARE, owner, -1)
    return heat.max(1).values, owner


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CenterNet, https://arxiv.org/abs/1904.07850, equation 1."""
    probability = torch.sigmoid(logits).clamp(1e-5, 1 - 1e-5)
    hit = -((1 - probability) ** 2) * probability.log()
    miss = -((1 - heat) ** 4) * probability**2 * (1 - probability).log()
    return torch.where(heat >= 0.999, hit, miss).sum()


def _overlap_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """One minus generalised intersection over union, https://arxiv.org/abs/1902.09630."""
    if len(predicted) == 0:
        return predicted.sum()
    low = torch.maximum(predicted[:, :2], wanted[:, :2])
    high = torch.minimum(predicted[:, 2:], wanted[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = (predicted[:, 2:] - predicted[:, :2]).prod(1) + (wanted[:, 2:] - wanted[:, :2]).prod(1)
    union = areas - shared
    outer = torch.maximum(predicted[:, 2:], wanted[:, 2:]) - torch.minimum(
        predicted[:, :2], wanted[:, :2]
    )
    hull = outer.prod(1).clamp(min=1e-6)
    return (1 - shared / union.clamp(min=1e-6) + (hull - union) / hull).mean()


def _outline(points: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float32]:
    """Return a soft mask `[128, 128]` of head and hair, open below, or of the whole crop."""
    mask = np.zeros((128, 128), np.float32)
    kind = generator.random()
    if kind < 0.3:
        mask[:] = 1
        edge = int(generator.integers(0, 6))
        if edge:
            mask[:edge] = mask[-edge:] = mask[:, :edge] = mask[:, -edge:] = 0
    else:
        low, high = points.min(0), points.max(0)
        centre = (low + high) / 2 - (0, 0.08 * (high[1] - low[1]))
        axes = (high - low) / 2 * generator.uniform((1.08, 1.15), (1.5, 1.5))
        ellipse = (tuple(map(float, centre)), tuple(map(float, 2 * axes)), 0.0)
        cv2.ellipse(mask, ellipse, 1.0, -1)
        if generator.random() < 0.75:  # neck and shoulders
            wide = generator.uniform(0.25, 0.6) * (high[0] - low[0])
            bottom = [(centre[0] - 2.2 * wide, 128), (centre[0] + 2.2 * wide, 128)]
            top = [(centre[0] + wide, high[1] - 8), (centre[0] - wide, high[1] - 8)]
            cv2.fillPoly(mask, [np.array(bottom + top, np.int32)], 1.0)
    softness = generator.uniform(0.3, 4.0)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), softness), np.float32)


def _turned(picture: Picture) -> Picture:
    """Return the outer strips of a crop folded over its middle: skin and hair without a face."""
    strips = np.concatenate([picture[:, :22], picture[:, 106:]], axis=1)
    return np.asarray(cv2.resize(strips, (128, 128)), np.uint8)


def _stack(scenes: list[tuple[Picture, NDArray[np.float32]]]) -> Batch:
    boxes = np.zeros((len(scenes), MAX_FACES, 4), np.float32)
    is_face = np.zeros((len(scenes), MAX_FACES), np.float32)
    for index, (_, found) in enumerate(scenes):
        boxes[index, : len(found)] = found
        is_face[index, : len(found)] = 1
    return {
        "picture": torch.from_numpy(np.stack([picture for picture, _ in scenes])),
        "boxes": torch.from_numpy(boxes),
        "is_face": torch.from_numpy(is_face),
    }
