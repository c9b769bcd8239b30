"""Training tasks of the embedded networks that read aligned crops: identity and parsing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_nets import INPUT_SIZE, IdentityNetwork, ParsingNetwork
from sglat.networks.faces import PARSING_CLASSES
from sglat.networks.pixels import from_pixels
from sglat_lab.measure.teachers import MobileFaceIdentity, aligned_vectors, pair_auc
from sglat_lab.train.adversarial_examples import TunedGenerator, fooled
from sglat_lab.train.data import Faces
from sglat_lab.train.faces_augment import Picture, cover, cut, degrade, smooth_field
from sglat_lab.train.faces_loop import Batch

NUM_HARD = 8  # adversarial examples in a step that has them
HARD_SHARE = 0.35  # of the steps


class IdentityTask:
    """Aligned crops with the teacher's vectors; half of them are mixtures of two faces."""

    name = "identity"

    def __init__(
        self,
        faces: Faces,
        vectors: NDArray[np.float32],
        recipes: NDArray[np.float32],
        *,
        teacher: MobileFaceIdentity | None = None,
        generator: TunedGenerator | None = None,
    ) -> None:
        """Take the teacher's vectors `[M, 128]` of the mixes `[M, 3]`: row, other row, share.

        A teacher adds adversarial examples on pixels; a generator adds adversarially tuned
        outputs.
        """
        self.faces, self.teacher, self.generator = faces, teacher, generator
        train = set(faces.rows(split="train").tolist())
        is_train = [int(a) in train and int(b) in train for a, b, _ in recipes]
        self.vectors, self.recipes = vectors, recipes
        self.train_items = np.flatnonzero(is_train)
        self.val_rows = faces.rows(split="val", stills=True)
        persons = faces.labels["identity"][recipes[:, 0].astype(np.int64)].astype(np.int64)
        self.persons = np.where(recipes[:, 2] >= 1, persons, -1)
        known = self.train_items[self.persons[self.train_items] >= 0]
        groups = np.split(
            known[np.argsort(self.persons[known], kind="stable")],
            np.cumsum(np.unique(self.persons[known], return_counts=True)[1])[:-1],
        )
        self.groups = [group for group in groups if len(group) > 1]

    def build(self) -> nn.Module:
        """Return the untrained network."""
        return IdentityNetwork(norm=True)

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return crops and their target vectors."""
        single = generator.choice(self.train_items, size - size // 3 // 2 * 2, replace=False)
        chosen = generator.choice(len(self.groups), size // 3 // 2, replace=False)
        pairs = [generator.choice(self.groups[int(g)], 2, replace=False) for g in chosen]
        items = np.concatenate([single, *pairs])
        crops = np.stack([self._crop(int(item), generator) for item in items])
        persons = self.persons[items]
        persons = np.where(persons >= 0, persons, -1 - np.arange(len(items)))  # unique
        return {
            "crop": torch.from_numpy(crops),
            "vector": torch.from_numpy(self.vectors[items]),
            "person": torch.from_numpy(persons),
            "seed": torch.from_numpy(generator.integers(0, 1 << 31, 1)),
        }

    def _crop(self, item: int, generator: np.random.Generator) -> Picture:
        picture = mix(self.faces, self.recipes[item])
        if generator.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
        turn, zoom = generator.normal(0, 3), np.exp(generator.normal(0, 0.03))
        turned = cv2.getRotationMatrix2D((64.0, 64.0), float(turn), float(zoom))
        matrix = np.array(turned, np.float64)
        matrix[:, 2] += generator.normal(0, 2, 2)
        picture = cut(picture, matrix, 128, generator)
        if generator.random() < 0.7:
            picture = degrade(picture, generator, 0.6)
        return cover(picture, generator) if generator.random() < 0.1 else picture

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the losses of cosines, similarities within the batch, and contrast."""
        crops = from_pixels(batch["crop"])
        found, wanted = network(crops).float(), batch["vector"]
        cosine = (found * wanted).sum(1).mean()
        off = (found @ found.T - wanted @ wanted.T).square()
        relation = off.sum() / (len(off) * (len(off) - 1))
        contrast = same_person(found, batch["person"])
        loss = (1 - cosine) + 3 * relation + 0.1 * contrast
        parts = {"cosine": cosine, "relation": relation, "contrast": contrast}
        generator = np.random.default_rng(int(batch["seed"][0]))
        if self.teacher is not None and network.training and generator.random() < HARD_SHARE:
            hard, vectors = self._hard(network, crops, generator)
            parts["hard"] = (network(hard).float() * vectors).sum(1).mean()
            loss = loss + 0.5 * (1 - parts["hard"])
        return loss, {key: float(value.detach()) for key, value in parts.items()}

    def _hard(
        self, network: nn.Module, crops: Tensor, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return adversarial examples and the teacher's vectors for them."""
        assert self.teacher is not None
        reference, other = crops[:NUM_HARD], crops[NUM_HARD : 2 * NUM_HARD]
        size = crops.shape[-1]
        kind = generator.random()
        network.eval()
        if kind < 0.3 and self.generator is not None:
            hard = self.generator.tuned(
                reference[: NUM_HARD // 2], self._distance(network, reference[: NUM_HARD // 2]),
                steps=int(generator.integers(0, 6)), rate=float(generator.uniform(0.003, 0.02)),
            )  # fmt: skip
        else:
            if kind < 0.55 and self.generator is not None:
                start = self.generator.pictures(reference)
            elif kind < 0.75:
                small = functional.interpolate(reference, scale_factor=0.15, mode="area")
                start = functional.interpolate(small, (size, size), mode="bicubic").clamp(-1, 1)
            else:
                share = float(generator.uniform(0.2, 0.9))
                start = share * other + (1 - share) * reference
            distance = self._distance(network, reference)
            steps = int(generator.integers(1, 7))
            hard = fooled(start, reference, distance, generator, steps=steps)
        network.train()
        with torch.no_grad():
            return hard, self.teacher(hard).float()

    @staticmethod
    def _distance(network: nn.Module, reference: Tensor) -> Callable[[Tensor], Tensor]:
        with torch.no_grad():
            wanted = network(reference).float()
        return lambda pictures: 1 - (network(pictures).float() * wanted).sum(1)

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the cosine with the teacher and the AUC on pairs of held-back persons."""
        identity = self.faces.labels["identity"]
        rows = np.array([row for row in self.val_rows if identity[row] >= 0])
        item_of = {int(a): i for i, (a, _, share) in enumerate(self.recipes) if share >= 1}
        crops = torch.from_numpy(np.stack([np.asarray(self.faces.images[r]) for r in rows]))
        vectors = network(from_pixels(crops)).numpy()
        teacher = self.vectors[[item_of[int(row)] for row in rows]]
        return {
            "cosine": float((vectors * teacher).sum(1).mean()),
            "auc": pair_auc(vectors, identity[rows]),
            "teacher_auc": pair_auc(teacher, identity[rows]),
        }


def same_person(vectors: Tensor, persons: Tensor) -> Tensor:
    """Return the contrastive loss of pictures of the same person within a batch."""
    logits = 12 * (vectors @ vectors.T)
    logits = logits - 1e4 * torch.eye(len(vectors), device=vectors.device)
    same = (persons[:, None] == persons[None]) & ~torch.eye(
        len(persons), dtype=torch.bool, device=persons.device
    )
    likelihood = (logits.log_softmax(1) * same).sum(1)[same.any(1)]
    return -likelihood.sum() / same.any(1).sum().clamp(min=1)


def mix(faces: Faces, recipe: NDArray[np.float32]) -> Picture:
    """Return a face, or the weighted mean of two aligned faces."""
    first = np.asarray(faces.images[int(recipe[0])])
    if recipe[2] >= 1:
        return first
    second = np.asarray(faces.images[int(recipe[1])])
    share = float(recipe[2])
    return np.asarray(cv2.addWeighted(first, share, second, 1 - share, 0), np.uint8)


def teacher_vectors(
    faces: Faces, teacher_path: Path, cache: Path, num_mixes: int, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the teacher's vectors and the mixes they belong to, computed once.

    Every still and every fourth video frame alone come first; then `num_mixes` mixes of two faces.
    """
    path = cache / f"identity_teacher_{num_mixes}.npz"
    if path.exists():
        with np.load(path) as stored:
            return stored["vectors"], stored["recipes"]
    generator = np.random.default_rng(11)
    is_still = faces.labels["clip"] == ""
    rows = np.flatnonzero(is_still | (np.arange(len(is_still)) % 4 == 0))
    train = faces.rows(split="train", stills=True)
    alone = np.stack([rows, rows, np.ones(len(rows))], 1)
    pairs = [generator.choice(train, 2, replace=False) for _ in range(num_mixes)]
    mixes = [(a, b, generator.uniform(0.35, 0.65)) for a, b in pairs]
    recipes = np.concatenate([alone, np.array(mixes).reshape(-1, 3)]).astype(np.float32)
    points = faces.labels["landmarks478"].astype(np.float32) * faces.images.shape[1]
    middles = (c * points[int(a)] + (1 - c) * points[int(b)] for a, b, c in recipes)
    mixed = (mix(faces, recipe) for recipe in recipes)
    vectors = aligned_vectors(teacher_path, zip(mixed, middles, strict=True), threads)
    np.savez(path, vectors=vectors, recipes=recipes)
    return vectors, recipes


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
