"""The embedded face detector: one stage, no anchors, one map of scores and boxes at stride 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_nets import ConvUnit, ResidualUnit, unshuffled

STRIDE: Final = 8
ALIGN: Final = 32  # sides of the input are multiples of the coarsest stride
LOG_LIMIT: Final = 4.0  # boxes reach at most 8 * e^4 = 437 px from their cell


@dataclass(frozen=True, kw_only=True)
class DetectorOutput:
    """Scores and boxes of every cell, h = H / 8, w = W / 8."""

    score_logits: Tensor
    """`[N, h, w]`."""
    reach: Tensor
    """`[N, 4, h, w]`: logarithm of the way to the left, top, right, bottom side, in cells."""


class DetectorNetwork(nn.Module):
    """Three scales, merged from coarse to fine, read out at the finest."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.stem = ConvUnit(48, 24, kernel=1, norm=norm)  # stride 4
        self.fine = nn.Sequential(
            ConvUnit(24, 48, stride=2, norm=norm), ResidualUnit(48, norm=norm)
        )  # stride 8
        self.middle = nn.Sequential(
            ConvUnit(48, 64, stride=2, norm=norm), ResidualUnit(64, norm=norm)
        )  # stride 16
        self.coarse = nn.Sequential(
            ConvUnit(64, 80, stride=2, norm=norm), ResidualUnit(80, norm=norm)
        )  # stride 32
        self.coarse_to_middle = ConvUnit(80, 64, kernel=1, norm=norm, activate=False)
        self.merge_middle = ConvUnit(64, 48, norm=norm)
        self.merge_fine = ConvUnit(48, 48, norm=norm)
        self.head = nn.Conv2d(48, 5, 1)

    def forward(self, pictures: Tensor) -> DetectorOutput:
        """Map pictures `[N, 3, H, W]` in [-1, 1], sides multiples of 32, to scores and boxes."""
        fine = self.fine(self.stem(unshuffled(pictures, 4)))
        middle = self.middle(fine)
        coarse = self.coarse_to_middle(self.coarse(middle))
        middle = self.merge_middle(middle + _doubled(coarse))
        fine = self.merge_fine(fine + _doubled(middle))
        out = self.head(fine)
        return DetectorOutput(score_logits=out[:, 0], reach=out[:, 1:].clamp(-LOG_LIMIT, LOG_LIMIT))


def boxes_of(reach: Tensor) -> Tensor:
    """Return the boxes of all cells in input pixels: `[N, 4, h, w]` logarithms to left, top, right,
    bottom `[N, 4, h, w]`."""
    height, width = reach.shape[2:]
    x = (torch.arange(width, device=reach.device) + 0.5)[None, None, :]
    y = (torch.arange(height, device=reach.device) + 0.5)[None, :, None]
    left, top, right, bottom = reach.exp().unbind(1)
    return STRIDE * torch.stack((x - left, y - top, x + right, y + bottom), dim=1)


def candidates(
    output: DetectorOutput, *, threshold: float, overlap: float = 0.4, limit: int = 32
) -> list[Tensor]:
    """Return for each picture the faces `[F, 5]`: left, top, right, bottom, score, best first.

    Only cells that are the best of their 3x3 neighbourhood count; of boxes that overlap by more
    than `overlap` (intersection over union) the best stays.
    """
    scores = torch.sigmoid(output.score_logits)
    peaks = scores == functional.max_pool2d(scores[:, None], 3, 1, 1)[:, 0]
    scores = scores * peaks
    boxes = boxes_of(output.reach)
    found = []
    for score, box in zip(scores.flatten(1), boxes.flatten(2).transpose(1, 2), strict=True):
        best = torch.argsort(score, descending=True)[: 4 * limit]
        best = best[score[best] >= threshold]
        rows = torch.cat((box[best], score[best, None]), dim=1)
        kept: list[Tensor] = []
        for row in rows:
            if all(overlap_of(row, other) <= overlap for other in kept):
                kept.append(row)
        found.append(torch.stack(kept[:limit]) if kept else rows[:0])
    return found


def overlap_of(first: Tensor, second: Tensor) -> float:
    """Return intersection over union of two boxes (left, top, right, bottom, ...)."""
    low = torch.maximum(first[:2], second[:2])
    high = torch.minimum(first[2:4], second[2:4])
    shared = float((high - low).clamp(min=0).prod())
    areas = float((first[2:4] - first[:2]).prod() + (second[2:4] - second[:2]).prod())
    return shared / max(areas - shared, 1e-9)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
