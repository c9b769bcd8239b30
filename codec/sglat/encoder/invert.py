"""Stage 3: every crop through the inverter, and how well it keeps the person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.encoder.align import Crops
from sglat.encoder.workfile import Stage
from sglat.networks.faces import FaceAnalysis


@dataclass(frozen=True, kw_only=True)
class InvertConfig:
    """How crops are inverted."""

    batch: int = 8
    every: int = 1
    """Invert every n-th frame; long clips need no more than a few hundred candidates."""
    max_frames: int = 400
    """Most frames inverted; `every` rises to meet it."""


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Latents of a subset of the frames."""

    frames: NDArray[np.int64]
    """Frame numbers, `[M]`."""
    ws: NDArray[np.float32]
    """W+ latents, `[M, L, D]`."""
    similarity: NDArray[np.float32]
    """Identity cosine between the crop and its reconstruction, `[M]`."""
    squared_error: NDArray[np.float32]
    """Mean squared error of the reconstruction, pictures in [-1, 1], `[M]`."""


@torch.no_grad()
def invert(
    crops: Crops,
    bundle: Bundle,
    faces: FaceAnalysis,
    stage: Stage,
    config: InvertConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Inversion:
    """Invert crops (method, section 5) and compare identities (section 6).

    Args:
        crops: of the whole clip.
        bundle: inverter and generator.
        faces: gives identity vectors.
        stage: where rows are kept; an interrupted stage continues.
        config: which frames.
        progress: called with (frames done, frames).
    """
    every = max(config.every, -(-len(crops) // config.max_frames))
    frames = np.arange(0, len(crops), every)
    for start in range(stage.rows, len(frames), config.batch):
        rows = frames[start : start + config.batch]
        pictures = crops.tensor(rows).to(bundle.device)
        ws = bundle.inverter(pictures)
        rendered = bundle.generator(ws).clamp(-1, 1)
        cosine = (faces.embed(rendered) * faces.embed(pictures)).sum(1)
        error = (rendered - pictures).square().mean((1, 2, 3))
        found = {"ws": ws, "similarity": cosine, "error": error}
        stage.append({name: values.cpu().numpy() for name, values in found.items()})
        if progress is not None:
            progress(start + len(rows), len(frames))
    if not stage.is_done:
        stage.finish()
    return Inversion(
        frames=frames,
        ws=stage.read("ws"),
        similarity=stage.read("similarity"),
        squared_error=stage.read("error"),
    )
