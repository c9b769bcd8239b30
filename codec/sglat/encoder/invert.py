"""Inversion of crops to W+, and refinement of the ID latent by optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.align import Alignment
from sglat.encoder.losses import shown_through
from sglat.encoder.optim import warm_up_and_fall
from sglat.encoder.stages import Stage, Task
from sglat.encoder.track import Track
from sglat.encoder.visible import Visible
from sglat.networks.devices import fast_type


@dataclass(frozen=True, kw_only=True)
class InvertConfig(Stage["Inversion"]):
    """How crops are inverted."""

    name = "invert"
    version = 2
    networks = ("inverter", "synthesizer", "faces")

    batch: int = 8
    every: int = 1
    """Invert every n-th frame; long clips need no more than a few hundred candidates."""
    max_frames: int = 400
    """Most frames inverted; `every` rises to meet it."""

    @torch.no_grad()
    def run(self, task: Task, track: Track, aligned: Alignment) -> Inversion:
        """Invert the frames with the face (METHOD.md, "The person") and compare identities.

        Interrupted work continues behind the rows stored.
        """
        store, bundle, usable = task.open(), task.bundle, np.flatnonzero(~track.held)
        frames = usable[:: max(self.every, -(-len(usable) // self.max_frames))]
        for start in range(store.rows, len(frames), self.batch):
            rows = frames[start : start + self.batch]
            pictures = aligned.crops.tensor(rows).to(bundle.device)
            ws = bundle.inverter(pictures)
            most = max(1, 2048 // bundle.resolution)  # 8 to 256 px
            rendered = torch.cat([bundle.generator(part).clamp(-1, 1) for part in ws.split(most)])
            cosine = (bundle.faces.embed(rendered) * bundle.faces.embed(pictures)).sum(1)
            store.append({"ws": ws.cpu().numpy(), "similarity": cosine.cpu().numpy()})
            task.tell(start + len(rows), len(frames))
        if not store.is_done:
            store.finish()
        return Inversion(frames=frames, ws=store.read("ws"), similarity=store.read("similarity"))


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """Latents of a subset of the frames."""

    frames: NDArray[np.int64]
    """Frame numbers, `[M]`."""
    ws: NDArray[np.float32]
    """W+ latents, `[M, L, D]`."""
    similarity: NDArray[np.float32]
    """Identity cosine between the crop and its reconstruction, `[M]`."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which of the inverted frames is the ID frame."""

    frame: int
    row: int
    """Its row among the inverted frames."""


@dataclass(frozen=True, kw_only=True)
class RefineConfig(Stage[Tensor]):
    """How the ID latent is refined."""

    name = "refine"
    networks = ("synthesizer", "perceptual")

    steps: int = 200
    rate: float = 0.3
    """Step length of Adam in W+, whose rows are about unit normal."""
    warm_up: int = 10
    """Steps over which the rate rises; over the second half it falls."""
    weight_l2: float = 4.0
    weight_perceptual: float = 2.0

    def run(
        self,
        task: Task,
        aligned: Alignment,
        visible: Visible,
        inversion: Inversion,
        selection: Selection,
    ) -> Tensor:
        """Return the latent `[L, D]` of the ID frame, optimised, on the CPU."""
        store, bundle = task.open(), task.bundle
        if not store.is_done:
            picture = aligned.crops.tensor([selection.frame]).to(bundle.device)
            start = torch.from_numpy(inversion.ws[[selection.row]]).to(bundle.device)
            masks = visible.masks([selection.frame], bundle.resolution)
            masks = None if masks is None else masks.to(bundle.device)
            found = refine_latents(bundle, picture, start, self, masks=masks, progress=task.tell)
            store.finish({"ws": found.cpu().numpy()})
        arrays, _ = store.result()
        return torch.from_numpy(arrays["ws"][0])


def refine_latents(
    bundle: Bundle,
    pictures: Tensor,
    ws: Tensor,
    config: RefineConfig,
    *,
    masks: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return W+ latents `[N, L, D]` whose renderings are closer to the pictures.

    Hybrid inversion: the inverter's latent is the start of a gradient descent through the generator
    (Zhu et al. 2016, https://arxiv.org/abs/1609.03552, section 3.2; in W+: Abdal et al. 2019,
    https://arxiv.org/abs/1904.03189). Pictures do not influence each other; a batch only saves
    time. Without steps the start is returned.

    Args:
        bundle: generator and perceptual network.
        pictures: aligned crops in [-1, 1], `[N, 3, H, W]`, on the bundle's device.
        ws: where to start, `[N, L, D]`.
        config: steps and weights.
        masks: `[N, 1, H, W]`, 0 where nothing is compared; None compares all.
    """
    generator = bundle.generator
    perceptual = bundle.perceptual if config.weight_perceptual else None
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = perceptual.features(pictures) if perceptual is not None else []
    latents = ws.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([latents], betas=(0.9, 0.95))
    for step in range(config.steps):
        factor = warm_up_and_fall(step, config.steps, config.warm_up)
        optimizer.param_groups[0]["lr"] = config.rate * factor
        shown = generator(latents, dtype=fast_type(latents.device)).float()
        if masks is not None:
            shown = shown_through(shown, pictures, masks)
        loss = config.weight_l2 * (shown - pictures).square().mean((1, 2, 3))
        if perceptual is not None:
            distance = perceptual.distance(perceptual.features(shown), wanted)
            loss = loss + config.weight_perceptual * distance
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, config.steps)
    return latents.detach()
