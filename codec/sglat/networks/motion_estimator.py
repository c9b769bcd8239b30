"""From face landmarks to the 32 controls: the start value of every frame's solution.

Each group of controls is estimated from the points and blendshapes of its own region and the head
pose alone, so that training fits its StyleSpace directions to that region's movement only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.face_points import BROWS, CHIN, EYE_CORNERS, EYES, IRISES, LIPS, NOSE_BRIDGE


@dataclass(frozen=True, kw_only=True)
class GroupInputs:
    """What one group of controls is estimated from."""

    name: str
    controls: int
    points: tuple[int, ...]
    blendshapes: tuple[int, ...]


# Groups and counts of Table 1 of the paper's supplement, blendshapes in MediaPipe order.
GROUP_INPUTS: Final = (
    GroupInputs(name="mouth", controls=17, points=LIPS, blendshapes=tuple(range(27, 50))),
    GroupInputs(name="chin", controls=4, points=CHIN, blendshapes=(23, 24, 25, 26, 37)),
    GroupInputs(name="eyes", controls=6, points=EYES, blendshapes=(9, 10, 19, 20, 21, 22, 17, 18)),
    GroupInputs(name="brows", controls=4, points=BROWS, blendshapes=(1, 2, 3, 4, 5)),
    GroupInputs(name="gaze", controls=1, points=(), blendshapes=(13, 14, 15, 16)),
)


class MotionEstimator(nn.Module):
    """Landmarks, blendshapes and pose to control values; only differences between frames mean
    anything."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        sizes = [self._inputs(group) for group in GROUP_INPUTS]
        self.linear = nn.ModuleList(
            nn.Linear(size, group.controls, bias=False)
            for size, group in zip(sizes, GROUP_INPUTS, strict=True)
        )
        self.hidden = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.output = nn.ModuleList(
            nn.Linear(hidden, group.controls, bias=False) for group in GROUP_INPUTS
        )
        for index, size in enumerate(sizes):
            self.register_buffer(f"mean{index}", torch.zeros(size))
            self.register_buffer(f"scale{index}", torch.ones(size))

    @staticmethod
    def _inputs(group: GroupInputs) -> int:
        shape = 2 * len(group.points) if group.points else 2  # gaze: one number an eye
        return shape + len(group.blendshapes) + 2

    @staticmethod
    def features(points: Tensor, blendshapes: Tensor, pose_degrees: Tensor) -> list[Tensor]:
        """Return the inputs of each group, `[N, inputs of the group]`, from landmarks in crop units
        (0 to 1) `[N, 478, 2]`, blendshapes `[N, 52]`, and yaw and pitch in degrees `[N, 2]`."""
        origin = points[:, list(NOSE_BRIDGE)].mean(1, keepdim=True)
        rows = []
        for group in GROUP_INPUTS:
            if group.points:
                shape = (points[:, list(group.points)] - origin).flatten(1)
            else:
                shape = torch.stack(
                    [
                        _iris_place(points, iris, corners)
                        for iris, corners in zip(IRISES, EYE_CORNERS, strict=True)
                    ],
                    dim=1,
                )
            rows.append(
                torch.cat([shape, blendshapes[:, list(group.blendshapes)], pose_degrees / 20], 1)
            )
        return rows

    @torch.no_grad()
    def fit_scale(self, points: Tensor, blendshapes: Tensor, pose_degrees: Tensor) -> None:
        """Set the input normalisation from a sample of faces."""
        for index, row in enumerate(self.features(points, blendshapes, pose_degrees)):
            getattr(self, f"mean{index}").copy_(row.mean(0))
            getattr(self, f"scale{index}").copy_(1 / row.std(0).clamp_min(1e-3))

    def forward(self, points: Tensor, blendshapes: Tensor, pose_degrees: Tensor) -> Tensor:
        """Return control values `[N, 32]`; see `features` for the inputs."""
        values = []
        for index, row in enumerate(self.features(points, blendshapes, pose_degrees)):
            row = (row - getattr(self, f"mean{index}")) * getattr(self, f"scale{index}")
            row = row.clamp(-5, 5)
            hidden = F.silu(self.hidden[index](row))
            values.append(self.linear[index](row) + self.output[index](hidden))
        return torch.cat(values, 1)


def _iris_place(points: Tensor, iris: int, corners: tuple[int, int]) -> Tensor:
    """Return the iris position between the eye corners, 0 at the first, 1 at the second, `[N]`."""
    start, end = points[:, corners[0]], points[:, corners[1]]
    axis = end - start
    along = ((points[:, iris] - start) * axis).sum(1)
    return along / axis.square().sum(1).clamp_min(1e-6)
