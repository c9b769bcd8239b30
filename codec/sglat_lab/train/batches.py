"""Training batches: stills alone, video frames in pairs of one clip, with their labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.networks.pixels import from_pixels
from sglat_lab.train.data import (
    FINE_FROM,
    Faces,
    blendshape_names,
    mirror_order,
    mirrored_names,
)
from sglat_lab.train.mini_model import FaceBatch


class FaceSampler:
    """Draws batches of pairs (identity frame, motion frame) from pictures kept on the device."""

    def __init__(
        self,
        faces: Faces,
        packs: Path,
        *,
        device: torch.device,
        seed: int,
        still_share: float = 0.4,
        far_share: float = 0.0,
    ) -> None:
        self.device = device
        self.random = np.random.default_rng(seed)
        self.still_share = still_share
        self.far_share = far_share
        labels = faces.labels
        keep_on_device = device.type != "cpu"
        self.images = torch.from_numpy(np.array(faces.images) if keep_on_device else faces.images)
        if keep_on_device:
            self.images = self.images.to(device)
        points = np.asarray(labels["landmarks478"], np.float32)
        self.points = torch.from_numpy(points).to(device)
        self.blendshapes = torch.from_numpy(np.asarray(labels["blendshapes52"], np.float32)).to(
            device
        )
        is_fine = (labels["pack"] != "faces128") | (faces.images.shape[1] <= FINE_FROM)
        self.is_fine = torch.from_numpy(is_fine).to(device)
        pose = np.stack([labels["yaw"], labels["pitch"]], 1).astype(np.float32)
        self.pose = torch.from_numpy(pose).to(device)
        names = blendshape_names(packs)
        self.mirror_points = torch.from_numpy(mirror_order(points[:2000])).to(device)
        self.mirror_blendshapes = torch.tensor(mirrored_names(names), device=device)
        self.stills = faces.rows(split="train", stills=True)
        frames = faces.rows(split="train", stills=False)
        clips = labels["clip"][frames]
        self.clips = [frames[clips == clip] for clip in np.unique(clips)]
        sizes = np.array([len(rows) for rows in self.clips], float)
        self.clip_chance = (
            np.sqrt(sizes) / np.sqrt(sizes).sum()
        )  # between uniform over clips and over frames
        self.val_stills = faces.rows(split="val", stills=True)
        self.val_frames = faces.rows(split="val", stills=False)
        self.val_clips = labels["clip"]

    def label_sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the labels of training pictures, for input statistics."""
        rows = np.concatenate([self.stills[::4], *[c[::4] for c in self.clips]])
        index = torch.from_numpy(rows).to(self.device)
        return self.points[index], self.blendshapes[index], self.pose[index]

    def batch(self, rows: np.ndarray, *, mirrored: Tensor | None = None) -> FaceBatch:
        """Return the faces of some rows; `mirrored` `[N]` says which to flip."""
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        images = from_pixels(self.images[index])
        points, shapes, pose = self.points[index], self.blendshapes[index], self.pose[index]
        if mirrored is not None:
            flipped = points[:, self.mirror_points] * points.new_tensor([-1.0, 1.0])
            flipped = flipped + points.new_tensor([1.0, 0.0])
            one, two = mirrored[:, None], mirrored[:, None, None]
            images = torch.where(two[..., None], images.flip(3), images)
            points = torch.where(two, flipped, points)
            shapes = torch.where(one, shapes[:, self.mirror_blendshapes], shapes)
            pose = torch.where(one, pose * pose.new_tensor([-1.0, 1.0]), pose)
        return FaceBatch(
            images=images.contiguous(memory_format=torch.channels_last),
            points=points,
            blendshapes=shapes,
            pose_degrees=pose,
            is_fine=self.is_fine[index],
        )

    def pairs(self, count: int) -> tuple[FaceBatch, FaceBatch]:
        """Return identity and motion frames, `count` each; a still is its own motion frame."""
        num_stills = int(self.random.binomial(count, self.still_share))
        stills = self.random.choice(self.stills, num_stills)
        first, second = [stills], [stills]
        for clip in self.random.choice(len(self.clips), count - num_stills, p=self.clip_chance):
            pair = self._pair(self.clips[clip])
            first.append(pair[:1])
            second.append(pair[1:])
        mirrored = torch.from_numpy(self.random.random(count) < 0.5).to(self.device)
        gains, shifts = self._colours(count)
        batches = []
        for rows in (first, second):
            batch = self.batch(np.concatenate(rows), mirrored=mirrored)
            images = ((batch.images + 1) * gains - 1 + shifts).clamp(-1, 1)
            batches.append(replace(batch, images=images))
        return batches[0], batches[1]

    def _pair(self, frames: np.ndarray) -> np.ndarray:
        """Return two frames of a clip; far pairs differ most in yaw and pitch among six frames."""
        if self.random.random() >= self.far_share:
            return self.random.choice(frames, 2)
        some = self.random.choice(frames, 6)
        pose = self.pose[torch.from_numpy(some).to(self.device)]
        distance = torch.cdist(pose[:1], pose)[0]
        pair: np.ndarray = some[[0, int(distance.argmax())]]
        return pair

    def _colours(self, count: int) -> tuple[Tensor, Tensor]:
        """Return mild colour gains `[N, 3, 1, 1]` and shifts `[N, 1, 1, 1]` for half of a batch."""
        chosen = self.random.random((count, 1, 1, 1)) < 0.5
        gains = 1 + 0.08 * self.random.standard_normal((count, 3, 1, 1)) * chosen
        shifts = 0.06 * self.random.standard_normal((count, 1, 1, 1)) * chosen
        return (
            torch.from_numpy(gains.astype(np.float32)).to(self.device),
            torch.from_numpy(shifts.astype(np.float32)).to(self.device),
        )


def as_fine(images: Tensor, is_fine: Tensor) -> Tensor:
    """Return images `[N, 3, H, W]`, those not fine `[N]` low-pass filtered to 128 px."""
    side = images.shape[-1]
    if side <= FINE_FROM or bool(is_fine.all()):
        return images
    coarse = F.interpolate(images, size=FINE_FROM, mode="area")
    coarse = F.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    return torch.where(is_fine[:, None, None, None], images, coarse)
