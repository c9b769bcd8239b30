"""The held-back pictures and clips that `sglat_lab.bench.mini` measures on, at 128 px."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SIDE: Final = 128  # pixels
_PAIR_SEED: Final = 7  # as validation during training draws them


@dataclass(frozen=True, kw_only=True)
class People:
    """Aligned crops with their labels."""

    images: NDArray[np.uint8]
    """`[N, 128, 128, 3]` RGB."""
    points: Tensor
    """Landmarks in crop units, `[N, 478, 2]`."""
    blendshapes: Tensor
    """`[N, 52]`."""
    pose: Tensor
    """Yaw and pitch in degrees, `[N, 2]`."""
    clips: NDArray[np.str_]
    """Clip of each frame; empty for stills."""

    def tensor(self, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """Return pictures `[N, 3, 128, 128]` in [-1, 1]."""
        picked = torch.from_numpy(np.ascontiguousarray(self.images[rows]))
        return picked.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def held_back_stills(data: Path) -> People:
    """Return all stills of the validation split."""
    return _read(data / "faces128", split="val")


def training_stills(data: Path, count: int) -> NDArray[np.uint8]:
    """Return some stills of the training split, spread over the pack, `[N, 128, 128, 3]`."""
    return _read(data / "faces128", split="train", count=count).images


def held_back_frames(data: Path) -> People:
    """Return the frames of the clips that are held back whole."""
    packs = [_read(data / name, split="val", stills=False) for name in ("faces256", "faces256b")]
    return People(
        images=np.concatenate([p.images for p in packs]),
        points=torch.cat([p.points for p in packs]),
        blendshapes=torch.cat([p.blendshapes for p in packs]),
        pose=torch.cat([p.pose for p in packs]),
        clips=np.concatenate([p.clips for p in packs]),
    )


def clip_pairs(frames: People, count: int) -> tuple[list[int], list[int]]:
    """Return fixed pairs of frames of one clip each, spread over the clips."""
    random = np.random.default_rng(_PAIR_SEED)
    names = np.unique(frames.clips)
    rows = [np.flatnonzero(frames.clips == name) for name in names]
    pairs = np.array([random.choice(rows[i % len(rows)], 2) for i in range(count)])
    return pairs[:, 0].tolist(), pairs[:, 1].tolist()


def _read(pack: Path, *, split: str, stills: bool = True, count: int | None = None) -> People:
    with np.load(pack / "labels.npz") as labels:
        chosen = np.flatnonzero((labels["split"] == split) & ((labels["clip"] == "") == stills))
        if count is not None:
            chosen = chosen[:: max(1, len(chosen) // count)][:count]
        names = [f"{name}.webp" for name in labels["name"][chosen]]
        return People(
            images=_pictures(pack / "images.tar", names),
            points=torch.from_numpy(labels["landmarks478"][chosen].astype(np.float32)),
            blendshapes=torch.from_numpy(labels["blendshapes52"][chosen].astype(np.float32)),
            pose=torch.from_numpy(
                np.stack([labels["yaw"], labels["pitch"]], 1)[chosen].astype(np.float32)
            ),
            clips=labels["clip"][chosen],
        )


def _pictures(archive: Path, names: list[str]) -> NDArray[np.uint8]:
    pictures = []
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar if member.isfile()}
        for name in names:
            file = tar.extractfile(members[name])
            assert file is not None
            picture = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))
            if picture.shape[0] != SIDE:
                picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            pictures.append(np.asarray(picture, np.uint8))
    return np.stack(pictures)
