"""Training task of the embedded identity network: MobileFaceNet's vectors of faces and mixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_nets import IDENTITY_DIM, IdentityNetwork
from sglat.networks.face_points import LEFT_EYE, MOUTH_CORNERS, NOSE_TIP, RIGHT_EYE
from sglat.networks.pixels import from_pixels
from sglat_lab.measure.teachers import MobileFaceIdentity
from sglat_lab.train.adversarial_examples import TunedGenerator, fooled
from sglat_lab.train.data import Faces
from sglat_lab.train.faces_augment import Picture, cover, cut, degrade
from sglat_lab.train.faces_loop import Batch

# Eyes, nose tip and mouth corners in the teacher's 112 px input, left to right.
TEMPLATE = np.array(((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)))
TEMPLATE_SIZE = 112
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
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


def pair_auc(vectors: NDArray[np.float32], persons: NDArray[np.generic]) -> float:
    """Return the area under the ROC curve of same/different person over all pairs."""
    first, second = np.triu_indices(len(persons), 1)
    cosine = (vectors[first] * vectors[second]).sum(1)
    same = persons[first] == persons[second]
    ranks = cosine.argsort().argsort() + 1.0
    positives, negatives = int(same.sum()), int((~same).sum())
    return float((ranks[same].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def five_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return eyes, nose tip and mouth corners `[5, 2]`, left to right as seen, of `[478, 2]`."""
    eyes = (points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0))
    return np.stack((*eyes, points[NOSE_TIP], *points[list(MOUTH_CORNERS)]))


def align_for_teacher(picture: Picture, points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the teacher's input `[3, 112, 112]` of a face with landmarks in pixels."""
    source = five_points(points).astype(np.float64)
    z, t = source @ (1, 1j), TEMPLATE @ np.array((1, 1j))
    scale = ((t - t.mean()) * (z - z.mean()).conj()).sum() / (np.abs(z - z.mean()) ** 2).sum()
    shift = t.mean() - scale * z.mean()
    matrix = np.array(((scale.real, -scale.imag, shift.real), (scale.imag, scale.real, shift.imag)))
    size = (TEMPLATE_SIZE, TEMPLATE_SIZE)
    aligned = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_AREA)
    normal = (aligned.astype(np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(teacher_path), options)
    generator = np.random.default_rng(11)
    is_still = faces.labels["clip"] == ""
    rows = np.flatnonzero(is_still | (np.arange(len(is_still)) % 4 == 0))
    train = faces.rows(split="train", stills=True)
    alone = np.stack([rows, rows, np.ones(len(rows))], 1)
    pairs = [generator.choice(train, 2, replace=False) for _ in range(num_mixes)]
    mixes = [(a, b, generator.uniform(0.35, 0.65)) for a, b in pairs]
    recipes = np.concatenate([alone, np.array(mixes).reshape(-1, 3)]).astype(np.float32)
    points = faces.labels["landmarks478"].astype(np.float32) * faces.images.shape[1]
    vectors = np.zeros((len(recipes), IDENTITY_DIM), np.float32)
    for index, recipe in enumerate(recipes):
        share = recipe[2]
        middle = share * points[int(recipe[0])] + (1 - share) * points[int(recipe[1])]
        aligned = align_for_teacher(mix(faces, recipe), middle)
        vectors[index] = session.run(None, {"input0": aligned[None]})[0][0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.savez(path, vectors=vectors, recipes=recipes)
    return vectors, recipes
