"""Training task of the embedded parsing network: aligned faces with 19-class masks."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_nets import INPUT_SIZE, ParsingNetwork
from sglat.networks.faces import PARSING_CLASSES
from sglat.networks.pixels import from_pixels
from sglat_lab.train.faces_augment import cover, degrade, smooth_field
from sglat_lab.train.faces_loop import Batch

NUM_VAL = 100
RARE = (6, 9, 15, 18)  # glasses, earring, necklace, hat
NUM_CLASSES = len(PARSING_CLASSES)
MIRRORED = np.arange(NUM_CLASSES, dtype=np.uint8)
MIRRORED[[2, 3, 4, 5, 7, 8]] = (3, 2, 5, 4, 8, 7)  # brows, eyes, ears change sides


class ParsingTask:
    """Rotated, scaled, relit faces with their masks; pictures with rare classes are oversampled."""

    name = "parsing"

    def __init__(
        self, pictures: NDArray[np.uint8], masks: NDArray[np.uint8], names: list[str]
    ) -> None:
        self.masks = masks
        size = (INPUT_SIZE, INPUT_SIZE)
        self.pictures = np.stack(
            [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures]
        )
        held_back = held_back_rows(names)
        self.val_rows = held_back
        self.train_rows = np.setdiff1d(np.arange(len(names)), held_back)
        present = np.stack([np.bincount(m.ravel(), minlength=NUM_CLASSES) for m in masks])
        self.donors = {k: self.train_rows[present[self.train_rows, k] > 60] for k in RARE}
        rare = (present[self.train_rows][:, RARE] > 60).sum(1)
        self.weights = (1.0 + 1.5 * rare) / (1.0 + 1.5 * rare).sum()
        share = present[self.train_rows].sum(0) / present[self.train_rows].sum()
        weights = (share + 1e-3) ** -0.4
        self.class_weights = torch.from_numpy((weights / weights.mean()).astype(np.float32))

    def build(self) -> nn.Module:
        """Return the untrained network."""
        return ParsingNetwork(norm=True)

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return crops and masks at 128 px."""
        rows = generator.choice(self.train_rows, size, p=self.weights)
        samples = [self._sample(int(row), generator) for row in rows]
        return {
            "crop": torch.from_numpy(np.stack([crop for crop, _ in samples])),
            "mask": torch.from_numpy(np.stack([mask for _, mask in samples])).long(),
        }

    def _sample(
        self, row: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        picture, mask = self._mirrored(row, generator)
        if generator.random() < 0.35:
            picture, mask = self._with_thing(picture, mask, generator)
        turn, zoom = generator.normal(0, 9), np.exp(generator.normal(0, 0.11))
        matrix = np.asarray(cv2.getRotationMatrix2D((63.5, 63.5), turn, zoom), np.float64)
        matrix[:, 2] += generator.normal(0, 5, 2)
        inverse = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
        y, x = np.mgrid[:INPUT_SIZE, :INPUT_SIZE].astype(np.float32)
        if generator.random() < 0.6:
            reach = generator.uniform(0, 3.5)
            x, y = (axis + smooth_field(INPUT_SIZE, reach, generator) for axis in (x, y))
        source = np.stack((x, y), -1) @ inverse[:, :2].T + inverse[:, 2]
        at_x, at_y = (np.ascontiguousarray(source[..., k], np.float32) for k in (0, 1))
        mask_x, mask_y = (2 * axis + np.float32(0.5) for axis in (at_x, at_y))  # masks: 256 px
        border = cv2.BORDER_REFLECT_101
        crop = cv2.remap(picture, at_x, at_y, cv2.INTER_LINEAR, borderMode=border)
        view = cv2.remap(mask, mask_x, mask_y, cv2.INTER_NEAREST, borderMode=border)
        crop = degrade(np.asarray(crop, np.uint8), generator, 0.9)
        if generator.random() < 0.1:  # the classes of the covered part are still targets
            crop = cover(crop, generator)
        return crop, np.asarray(view, np.uint8)

    def _mirrored(
        self, row: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        picture, mask = self.pictures[row], self.masks[row]
        if generator.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            mask = MIRRORED[np.ascontiguousarray(mask[:, ::-1])]
        return picture, mask

    def _with_thing(
        self, picture: NDArray[np.uint8], mask: NDArray[np.uint8], generator: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return a face with glasses, earring, necklace or hat pasted from another face."""
        kind = int(generator.choice(RARE))
        if not len(self.donors[kind]):
            return picture, mask
        worn, worn_mask = self._mirrored(int(generator.choice(self.donors[kind])), generator)
        there = (worn_mask == kind).astype(np.uint8)
        size = (INPUT_SIZE, INPUT_SIZE)
        share = cv2.resize(cv2.dilate(there, np.ones((3, 3), np.uint8)) * 255, size)
        alpha = (cv2.GaussianBlur(share, (3, 3), 0).astype(np.float32) / 255)[..., None]
        mixed = alpha * worn + (1 - alpha) * picture
        return mixed.astype(np.uint8), np.where(there > 0, worn_mask, mask)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return weighted cross entropy and the soft Dice loss of the classes present."""
        scores = network(from_pixels(batch["crop"])).float()
        weights = self.class_weights.to(scores.device)
        entropy = functional.cross_entropy(scores, batch["mask"], weights)
        probability = scores.softmax(1)
        wanted = functional.one_hot(batch["mask"], NUM_CLASSES).permute(0, 3, 1, 2).float()
        shared = (probability * wanted).sum((0, 2, 3))
        sizes = probability.sum((0, 2, 3)) + wanted.sum((0, 2, 3))
        present = wanted.sum((0, 2, 3)) > 0
        dice = (1 - 2 * shared / (sizes + 1))[present].mean()
        loss = entropy + dice
        return loss, {"entropy": float(entropy.detach()), "dice": float(dice.detach())}

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return mean IoU and pixel accuracy at 256 px on the masks held back."""
        confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
        for row in self.val_rows:
            scores = network(from_pixels(self.pictures[row][None]))
            found = functional.interpolate(scores, (256, 256), mode="bilinear").argmax(1)[0].numpy()
            confusion += confusion_of(found, self.masks[row])
        return {
            "miou": mean_iou(confusion),
            "accuracy": float(np.trace(confusion) / confusion.sum()),
        }


def held_back_rows(names: list[str]) -> NDArray[np.int64]:
    """Return the 100 validation rows: the first by the sha256 of their names."""
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    return np.sort(np.array(order[:NUM_VAL], np.int64))


def confusion_of(found: NDArray[np.integer], wanted: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return counts `[19, 19]`: rows the true class, columns the class found."""
    pairs = NUM_CLASSES * wanted.astype(np.int64).ravel() + found.astype(np.int64).ravel()
    counts = np.bincount(pairs, minlength=NUM_CLASSES**2)
    return counts.reshape(NUM_CLASSES, NUM_CLASSES)


def class_ious(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return intersection over union of each class `[19]`, NaN where it never occurs."""
    shared = np.diag(confusion).astype(float)
    union = confusion.sum(0) + confusion.sum(1) - shared
    with np.errstate(invalid="ignore"):
        return np.asarray(shared / union)


def mean_iou(confusion: NDArray[np.int64]) -> float:
    """Return the mean over the classes that occur."""
    return float(np.nanmean(class_ious(confusion)))
