"""Keeps each control at home: what it changes outside its own part of the face is penalised.

The measure is the one controls are judged by afterwards (`sglat.bundles.discover.part_masks`): mean
absolute change inside the group's part over mean absolute change outside.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sglat.bundles.controls import GROUPS
from sglat.bundles.discover import part_masks
from sglat.networks.faces import FaceAnalysis
from sglat_lab.train.mini_model import MiniModel

PUSH = 2.0  # standard deviations by which a control is moved
WANTED = 4.0  # inside over outside, from which on a control costs nothing


class Locality:
    """Draws controls, moves each on one face of a batch, and compares inside with outside."""

    def __init__(self, faces: FaceAnalysis, sigma: Tensor, *, seed: int) -> None:
        """Take the parsing network and the standard deviation of each control, `[32]`."""
        self.faces = faces
        self.sigma = sigma
        self.random = torch.Generator().manual_seed(seed)
        self.ratios = torch.full((len(GROUPS),), math.nan)

    def __call__(
        self,
        model: MiniModel,
        styles: list[Tensor],
        pictures: Tensor,
        *,
        dtype: torch.dtype,
    ) -> Tensor:
        """Return the mean cost over the faces, a scalar; 0 where all controls are local.

        Args:
            model: generator and directions.
            styles: StyleSpace vectors of the faces, `[N, C]` a layer.
            pictures: the same faces rendered, `[N, 3, H, W]`.
            dtype: of the generator's features.
        """
        count = len(pictures)
        drawn = torch.randint(0, len(GROUPS), (count,), generator=self.random)
        signs = torch.randint(0, 2, (count,), generator=self.random) * 2.0 - 1
        values = torch.zeros(count, len(GROUPS), device=pictures.device)
        push = PUSH * signs * self.sigma.to(signs.device)[drawn]
        values[torch.arange(count), drawn] = push.to(values.device)
        moved = model.generator.synthesize(model.moved(styles, values), dtype=dtype)
        difference = (moved - pictures).abs().mean(1, keepdim=True)
        with torch.no_grad():
            parts = part_masks(self.faces.parse(pictures.detach().float().clamp(-1, 1)))
        mask = torch.cat([parts[GROUPS[c]][i : i + 1] for i, c in enumerate(drawn.tolist())])
        inside = (difference * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
        rest = 1 - mask
        outside = (difference * rest).sum((1, 2, 3)) / rest.sum((1, 2, 3)).clamp_min(1)
        seen = mask.sum((1, 2, 3)) >= 4  # a part that is covered or lost says nothing
        ratio = (inside + 1e-4) / (outside + 1e-4)
        cost = (math.log(WANTED) - ratio.log()).clamp_min(0)
        self._remember(drawn, ratio.detach(), seen)
        total: Tensor = (cost * seen).sum() / seen.sum().clamp_min(1)
        return total

    def _remember(self, drawn: Tensor, ratio: Tensor, seen: Tensor) -> None:
        """Keep a running mean of each control's ratio for the log."""
        for control, value, is_seen in zip(
            drawn.tolist(), ratio.tolist(), seen.tolist(), strict=True
        ):
            if is_seen:
                before = float(self.ratios[control])
                fresh = value if math.isnan(before) else 0.9 * before + 0.1 * value
                self.ratios[control] = fresh

    def local_share(self) -> float:
        """Return the share of controls whose running ratio is at least 3."""
        return float((self.ratios >= 3).float().mean())
