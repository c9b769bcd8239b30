"""Validation during training: one JSON line of figures, one sheet of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sglat.networks.pixels import to_pixels
from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual
from sglat_lab.train.batches import FaceSampler
from sglat_lab.train.mini_model import FaceBatch, MiniModel


class Trained(Protocol):
    """A training run as validation reads it."""

    sampler: FaceSampler
    average: MiniModel
    state: dict[str, Any]
    out: Path
    perceptual: SqueezePerceptual
    identity: MobileFaceIdentity


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of images in [-1, 1] in dB, `[N]`."""
    return 10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)).clamp_min(1e-10))


@torch.no_grad()
def validate(trainer: Trained, *, stills: int = 96, pairs: int = 48) -> dict[str, Any]:
    """Measure inversion of stills and motion transfer within unseen clips; write a sheet."""
    sampler, model = trainer.sampler, trainer.average
    rows = sampler.val_stills[:: max(1, len(sampler.val_stills) // stills)]
    faces = sampler.batch(rows)
    inverted = _in_parts(faces, faces, model, inversion=True)
    record: dict[str, Any] = {
        "step": trainer.state["step"],
        "images": trainer.state["images"],
        "minutes": round(trainer.state["seconds"] / 60, 1),
        **{f"still_{k}": v for k, v in _figures(trainer, inverted, faces.images).items()},
    }
    first, second = _clip_pairs(sampler.val_frames, sampler.val_clips, pairs)
    identity, motion = sampler.batch(first), sampler.batch(second)
    moved = _in_parts(identity, motion, model, inversion=False)
    record.update({f"moved_{k}": v for k, v in _figures(trainer, moved, motion.images).items()})
    record["static_psnr"] = round(float(psnr(identity.images, motion.images).mean()), 2)
    print("VALIDATION", json.dumps(record), flush=True)
    rows_of_sheet = [
        faces.images[:12], inverted[:12], identity.images[:12], motion.images[:12], moved[:12],
    ]  # fmt: skip
    write_sheet(trainer.out / f"sheet_{trainer.state['images']:08d}.png", rows_of_sheet)
    return record


def _in_parts(
    identity: FaceBatch, motion: FaceBatch, model: MiniModel, *, inversion: bool
) -> Tensor:
    pictures = []
    for start in range(0, len(identity), 16):
        part = slice(start, start + 16)
        a, b = identity.part(part), motion.part(part)
        if inversion:
            pictures.append(model.generator(model.inverter(a.images)))
        else:
            pictures.append(model(a, b)[0])
    return torch.cat(pictures).clamp(-1, 1)


def _figures(trainer: Trained, pictures: Tensor, target: Tensor) -> dict[str, float]:
    perceptual, use_heads = trainer.perceptual, trainer.perceptual.heads is not None
    distances, cosines = [], []
    for a, b in zip(pictures.split(16), target.split(16), strict=True):
        distances.append(perceptual(a, b, use_heads=use_heads))
        cosines.append((trainer.identity(a) * trainer.identity(b)).sum(1))
    return {
        "psnr": round(float(psnr(pictures, target).mean()), 3),
        "lpips" if use_heads else "squeeze": round(float(torch.cat(distances).mean()), 4),
        "identity": round(float(torch.cat(cosines).mean()), 3),
    }


def _clip_pairs(frames: np.ndarray, clips: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return fixed pairs of frames of one clip each, spread over the unseen clips."""
    random = np.random.default_rng(7)
    names = np.unique(clips[frames])
    pairs = [random.choice(frames[clips[frames] == names[i % len(names)]], 2) for i in range(count)]
    both = np.array(pairs)
    return both[:, 0], both[:, 1]


def write_sheet(path: Path, rows: list[Tensor]) -> None:
    """Write rows of images `[N, 3, H, W]` in [-1, 1] as one PNG."""
    import cv2

    sheet = torch.cat([torch.cat(list(row.float().cpu()), 2) for row in rows], 1)
    cv2.imwrite(str(path), cv2.cvtColor(to_pixels(sheet[None])[0], cv2.COLOR_RGB2BGR))
