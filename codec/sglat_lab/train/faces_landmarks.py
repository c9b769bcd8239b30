"""Training task of the embedded landmark network: labelled, aligned faces."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_nets import (
    INPUT_SIZE,
    NUM_SHAPES,
    LandmarkNetwork,
    LandmarkOutput,
)
from sglat.networks.embedded_views import CROP_SCALE
from sglat.networks.face_points import (
    FIRST_IRIS_POINT,
    JAW_OPEN_SHAPE,
    LEFT_EYE,
    NUM_POINTS,
    RIGHT_EYE,
)
from sglat.networks.pixels import from_pixels
from sglat_lab.train.data import Faces, mirrored_names, mirrored_points
from sglat_lab.train.faces_augment import cover, cut, deformed, degrade, scenery, shuffled
from sglat_lab.train.faces_loop import Batch

DEFORMED_SHARE = 0.4  # of the faces; their blendshapes are unknown


class LandmarkTask:
    """Random crops of aligned faces with their labels, and one crop in eight without a face."""

    name = "landmarks"

    def __init__(self, faces: Faces, blendshape_names: list[str]) -> None:
        self.faces = faces
        labels = faces.labels
        self.points = labels["landmarks478"].astype(np.float32)
        self.pose = np.stack([labels[k] for k in ("yaw", "pitch", "roll")], 1).astype(np.float32)
        self.eyes = np.stack([labels["ear_left"], labels["ear_right"]], 1).astype(np.float32)
        self.blendshapes = labels["blendshapes52"].astype(np.float32)
        self.train_rows = faces.rows(split="train")
        self.val_rows = faces.rows(split="val")
        self.mean_shape, self.shapes = principal_shapes(self.points[self.train_rows])
        self.mirror = mirrored_points(self.mean_shape)
        self.mirror_blendshapes = np.array(mirrored_names(blendshape_names))
        self.weights = self._row_weights()
        emphasis = np.ones(NUM_POINTS, np.float32)
        emphasis[_eye_points(self.mean_shape)] = 2.5
        emphasis[FIRST_IRIS_POINT:] = 3
        self.emphasis = torch.from_numpy(emphasis / emphasis.mean())

    def _row_weights(self) -> NDArray[np.float64]:
        """Return sampling weights; rare expressions and turned heads are oversampled."""
        rows = self.train_rows
        shut = self.eyes[rows].min(1) < 0.12
        turned = (np.abs(self.pose[rows, 0]) > 18) | (np.abs(self.pose[rows, 1]) > 14)
        open_mouth = self.blendshapes[rows, JAW_OPEN_SHAPE] > 0.25
        glance = self.blendshapes[rows, 13:17].max(1) > 0.45  # eyeLookIn, eyeLookOut
        shapes = self.blendshapes[rows]
        one_sided = np.abs(shapes - shapes[:, self.mirror_blendshapes]).sum(1) > 2.0
        strong = shapes.sum(1) > np.quantile(shapes.sum(1), 0.85)
        weights = (
            1.0 + 2.0 * shut + turned + open_mouth + 1.5 * glance + 2.5 * one_sided + 1.5 * strong
        )
        return np.asarray(weights / weights.sum())

    def build(self) -> nn.Module:
        """Return the untrained network with the principal shapes in place."""
        network = LandmarkNetwork(norm=True)
        network.mean_shape.copy_(torch.from_numpy(self.mean_shape))
        network.shapes.copy_(torch.from_numpy(self.shapes))
        nn.init.normal_(network.head.weight, std=0.01)
        nn.init.zeros_(network.head.bias)
        return network

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return crops and labels."""
        rows = generator.choice(self.train_rows, size, p=self.weights)
        samples = [self._sample(int(row), generator) for row in rows]
        return _stack(samples)

    def _sample(self, row: int, generator: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        picture = np.asarray(self.faces.images[row])
        points, pose, eyes = self.points[row], self.pose[row], self.eyes[row]
        blendshapes = self.blendshapes[row]
        if generator.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            points = points[self.mirror] * (-1, 1) + (1, 0)
            pose, eyes = pose * (-1, 1, -1), eyes[::-1]
            blendshapes = blendshapes[self.mirror_blendshapes]
        known = generator.random() > DEFORMED_SHARE
        if not known:
            picture, points, eyes = _deformed(picture, points, eyes, generator)
        is_face = generator.random() > 0.12
        wide = generator.random() < 0.5
        view = random_view(points, generator, wide) if is_face else None
        if view is None:
            crop = faceless(picture, points, generator)
        else:
            matrix, turn = view
            crop = cut(picture, matrix, INPUT_SIZE, generator)
            scaled = np.concatenate([points * picture.shape[0], np.ones((NUM_POINTS, 1))], 1)
            points = scaled @ matrix.T / INPUT_SIZE
            pose = pose + np.array((0, 0, turn))
        crop = degrade(crop, generator)
        if generator.random() < 0.12:
            crop = cover(crop, generator)
        return {
            "crop": crop, "points": points.astype(np.float32), "pose": pose.astype(np.float32),
            "eyes": np.ascontiguousarray(eyes), "blendshapes": blendshapes,
            "is_face": np.float32(is_face), "is_known": np.float32(is_face and known),
        }  # fmt: skip

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the weighted sum of point, pose, eye, blendshape and score errors."""
        out: LandmarkOutput = network(from_pixels(batch["crop"]))
        face = batch["is_face"]

        def mean(error: Tensor, counts: Tensor = face) -> Tensor:
            return (error.mean(1) * counts).sum() / counts.sum().clamp(min=1)

        distance, eyes, pose = _errors(out, batch)
        point = mean(distance * self.emphasis.to(distance.device))
        gaze = mean(distance[:, FIRST_IRIS_POINT:])
        unit = interocular(batch["points"])[:, None]
        lids = mean((_gaps(out.points) / unit - _gaps(batch["points"]) / unit).abs())
        eyes, pose = mean(eyes), mean(pose)
        shapes = mean((out.blendshapes - batch["blendshapes"]).abs(), batch["is_known"])
        score = functional.binary_cross_entropy_with_logits(out.score_logit, face)
        loss = (
            point + 0.4 * gaze + 2 * lids + 0.5 * eyes + 0.01 * pose + 0.5 * shapes + 0.05 * score
        )
        parts = {
            "loss": loss,
            "point": point,
            "gaze": gaze,
            "eyes": eyes,
            "pose": pose,
            "shapes": shapes,
        }
        return loss, {key: float(value.detach()) for key, value in parts.items()}

    @torch.inference_mode()
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return errors on validation crops, once as the tracker and once as the detector crops."""
        figures: dict[str, float] = {}
        for kind, wide in (("track", False), ("wide", True)):
            samples = []
            for row in self.val_rows:
                generator = np.random.default_rng(int(row))
                points = self.points[row]
                matrix, turn = random_view(points, generator, wide)
                scaled = np.concatenate([points * 128, np.ones((NUM_POINTS, 1))], 1)
                samples.append(
                    {
                        "crop": cut(np.asarray(self.faces.images[row]), matrix, 128, generator),
                        "points": (scaled @ matrix.T / 128).astype(np.float32),
                        "pose": self.pose[row] + np.array((0, 0, turn), np.float32),
                        "eyes": self.eyes[row],
                    }
                )
            batch = _stack(samples)
            distance, eyes, pose = _errors(network(from_pixels(batch["crop"])), batch)
            figures[f"{kind}_points"] = float(100 * distance.mean())
            figures[f"{kind}_iris"] = float(100 * distance[:, FIRST_IRIS_POINT:].mean())
            figures[f"{kind}_pose"] = float(pose.mean())
            figures[f"{kind}_eyes"] = float(eyes.mean())
        return figures


def _errors(out: LandmarkOutput, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return errors of points in inter-ocular distances `[N, 478]`, eyes and pose."""
    unit = interocular(batch["points"])[:, None]
    distance = torch.linalg.vector_norm(out.points - batch["points"], dim=-1) / unit
    return distance, (out.eye_openness - batch["eyes"]).abs(), (out.pose - batch["pose"]).abs()


def eye_aspect(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the height over the width of left and right eye, `[..., 2]`, of `[..., 478, 2]`."""
    p = np.stack([points[..., list(eye), :] for eye in (LEFT_EYE, RIGHT_EYE)], -3)
    tall, wide = p[..., (1, 2), :] - p[..., (5, 4), :], p[..., 0, :] - p[..., 3, :]
    height = np.linalg.norm(tall, axis=-1).sum(-1)
    return np.asarray(height / np.maximum(2 * np.linalg.norm(wide, axis=-1), 1e-6))


def _deformed(
    picture: NDArray[np.uint8],
    points: NDArray[np.float32],
    eyes: NDArray[np.float32],
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Return picture, points in crop units and eye aspect ratios of a deformed face."""
    size = picture.shape[0]
    pixels = (points * size).astype(np.float32)
    unit = float(interocular(torch.from_numpy(pixels[None])))
    picture, moved = deformed(picture, pixels, unit, generator)
    change = eye_aspect(moved) / np.maximum(eye_aspect(pixels), 1e-3)
    return picture, moved / size, eyes * change.astype(np.float32).clip(0.5, 2)


def random_view(
    points: NDArray[np.float32], generator: np.random.Generator, wide: bool
) -> tuple[NDArray[np.float64], float]:
    """Return the matrix that cuts a face (`points` in crop units) and the turn in degrees."""
    shift, zoom, turn = (0.15, 0.2, 30.0) if wide else (0.05, 0.08, 8.0)
    low, high = points.min(0) * 128, points.max(0) * 128
    side = CROP_SCALE * float((high - low).max()) * np.exp(generator.uniform(-zoom, zoom))
    centre = (low + high) / 2 + generator.uniform(-shift, shift, 2) * (high - low).max()
    degrees = float(generator.uniform(-turn, turn))
    matrix = _turning(centre, degrees, INPUT_SIZE / side)
    matrix[:, 2] += INPUT_SIZE / 2 - centre
    return matrix, degrees  # OpenCV turns counter-clockwise for positive angles, as roll counts


def faceless(
    picture: NDArray[np.uint8], points: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a crop without a whole face: tiles, scenery, or a piece beside or inside a face."""
    kind = generator.random()
    if kind < 0.3:
        return shuffled(picture, generator)
    if kind < 0.7:
        return scenery(INPUT_SIZE, generator)
    low, high = points.min(0) * 128, points.max(0) * 128
    size = float((high - low).max())
    side = CROP_SCALE * size * generator.uniform(0.15, 0.35)  # strongly enlarged
    angle = generator.uniform(0, 2 * np.pi)
    reach = 0.6 * size if kind < 0.85 else 0.2 * size
    centre = (low + high) / 2 + reach * np.array((np.cos(angle), np.sin(angle)))
    matrix = _turning(centre, float(generator.uniform(0, 360)), INPUT_SIZE / side)
    matrix[:, 2] += INPUT_SIZE / 2 - centre
    return cut(picture, matrix, INPUT_SIZE, generator)


def _turning(centre: NDArray[np.floating], degrees: float, scale: float) -> NDArray[np.float64]:
    middle = (float(centre[0]), float(centre[1]))
    return np.array(cv2.getRotationMatrix2D(middle, degrees, scale), np.float64)


def principal_shapes(
    points: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean `[478, 2]` and principal shapes `[80, 478, 2]` of upright faces of unit size."""
    unit = interocular(torch.from_numpy(points)).numpy()[:, None, None]
    eyes = (points[:, LEFT_EYE].mean(1) + points[:, RIGHT_EYE].mean(1)) / 2
    centred = (points - eyes[:, None]) / unit - (0, 0.35)  # the middle lies below the eyes
    mean = centred.mean(0)
    emphasis = np.ones((NUM_POINTS, 1))
    emphasis[_eye_points(mean)] = 2
    emphasis[FIRST_IRIS_POINT:] = 3
    flat = ((centred - mean) * emphasis).reshape(len(points), -1)
    covariance = flat.T @ flat / len(flat)
    values, vectors = np.linalg.eigh(covariance)
    strongest = np.argsort(values)[::-1][:NUM_SHAPES]
    shapes = vectors[:, strongest].T * np.sqrt(values[strongest])[:, None]
    shapes = shapes.reshape(NUM_SHAPES, NUM_POINTS, 2) / emphasis
    return mean.astype(np.float32), shapes.astype(np.float32)


def interocular(points: Tensor) -> Tensor:
    """Return the distance of the eye centres, `[N]`, of points `[N, 478, 2]`."""
    left, right = points[:, LEFT_EYE].mean(1), points[:, RIGHT_EYE].mean(1)
    distance: Tensor = torch.linalg.vector_norm(left - right, dim=-1)
    return distance


def _gaps(points: Tensor) -> Tensor:
    """Return the lid and lip openings `[N, 6]`."""
    above = points[:, (385, 387, 160, 158, 13, 82)]
    below = points[:, (380, 373, 144, 153, 14, 87)]
    gaps: Tensor = torch.linalg.vector_norm(above - below, dim=-1)
    return gaps


def _eye_points(mean_shape: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the points nearest to the lids."""
    lids = mean_shape[list(LEFT_EYE + RIGHT_EYE)]
    distance = np.linalg.norm(mean_shape[:, None] - lids[None], axis=-1).min(1)
    return np.flatnonzero(distance < 0.12)


def _stack(samples: list[dict[str, NDArray[np.generic]]]) -> Batch:
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in samples[0]}
