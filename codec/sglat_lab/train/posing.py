"""Makes degrees mean degrees: faces are turned to angles drawn at random, looked at by the landmark
network, and pay for every degree that was asked for and not seen.

Pairs of frames alone teach angles that are too small: errors of the labels and of the picture
shrink what a regression dares to turn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.embedded_landmarks import INPUT_SIZE
from sglat.networks.embedded_views import CROP_SCALE
from sglat_lab.train.mini_model import FaceBatch, MiniModel

RANGES = (23.0, 16.0)  # degrees of yaw and pitch, either way
SPREAD = (0.06, 0.03, 4.0)  # of the views: size, place in crops, roll in degrees
UNITS = (10.0, 6.0)  # degrees of yaw and pitch that cost 1: pitch has the smaller range


class Posing:
    """Draws angles, turns faces to them and compares with what the landmark network sees.

    Every face is seen in a view of its own, a little off, so that the network cannot be pleased by
    a pattern in fixed pixels.
    """

    def __init__(self, landmarks: nn.Module, *, seed: int) -> None:
        """Take the network that gives pose in degrees of views `[N, 3, 128, 128]`."""
        self.landmarks = landmarks
        self.random = torch.Generator().manual_seed(seed)
        self.error = torch.full((2,), float("nan"))

    def __call__(
        self, model: MiniModel, ws: Tensor, faces: FaceBatch, *, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Return the mean cost, a scalar, and the turned pictures `[N, 3, H, W]`.

        Args:
            model: generator and pose flow.
            ws: ID latents of the faces, `[N, L, D]`.
            faces: their labels.
            dtype: of the generator's features.
        """
        count = len(ws)
        ranges = torch.tensor(RANGES)
        asked = (torch.rand(count, 2, generator=self.random) * 2 - 1) * ranges
        one = torch.randint(0, 3, (count, 1), generator=self.random)  # yaw, pitch or both
        asked = (asked * (one != torch.tensor([[1, 0]]))).to(ws.device)
        turned = model.pose_flow.turn(ws, faces.pose_degrees, asked)
        pictures = model.generator.synthesize(model.generator.styles(turned), dtype=dtype)
        seen = self.landmarks(self._views(pictures.float(), faces.points)).pose[:, :2]
        miss = (seen - asked) / seen.new_tensor(UNITS)
        with torch.no_grad():
            now = (seen - asked).abs().mean(0).cpu()
            self.error = torch.where(self.error.isnan(), now, 0.95 * self.error + 0.05 * now)
        return F.smooth_l1_loss(miss, torch.zeros_like(miss), beta=0.3), pictures

    def _views(self, pictures: Tensor, points: Tensor) -> Tensor:
        """Cut the squares in which the landmark network looks for faces with points `[N, 478,
        2]`."""
        low, high = points.amin(1), points.amax(1)
        size, place, roll = (
            torch.randn(len(points), n, generator=self.random).to(points) * s
            for n, s in zip((1, 2, 1), SPREAD, strict=True)
        )
        centre = (low + high) / 2 + place
        side = CROP_SCALE * (high - low).amax(1, keepdim=True) * (1 + size)
        angle = torch.deg2rad(roll[:, 0])
        rows = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        theta = torch.cat([rows * side[..., None], (2 * centre - 1)[..., None]], 2)
        grid = F.affine_grid(theta, [len(points), 3, INPUT_SIZE, INPUT_SIZE], align_corners=False)
        return F.grid_sample(
            pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
