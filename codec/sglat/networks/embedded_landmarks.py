"""The embedded landmark network: 478 points, pose, eye openness, blendshapes and a face score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.embedded_blocks import ConvUnit, ResidualUnit, unshuffled
from sglat.networks.face_points import NUM_BLENDSHAPES, NUM_POINTS

INPUT_SIZE: Final = 128
NUM_SHAPES: Final = 80  # principal shapes; 0.25 % of the inter-ocular distance is left over
DEGREES: Final = 30.0  # unit of the pose outputs; keeps them near 1
SHAPE_TENSORS: Final = ("mean_shape", "shapes")


@dataclass(frozen=True, kw_only=True)
class LandmarkOutput:
    """Network output for N crops."""

    points: Tensor
    """`[N, 478, 2]`, x and y in units of the crop: 0 to 1 from its left and top edge."""
    pose: Tensor
    """`[N, 3]`: yaw, pitch, roll in degrees, measured in the crop."""
    eye_openness: Tensor
    """`[N, 2]`: eye aspect ratio of the person's own left and right eye."""
    blendshapes: Tensor
    """`[N, 52]`, 0 to 1."""
    score_logit: Tensor
    """`[N]`; above zero means a face."""


class LandmarkNetwork(nn.Module):
    """Regresses a similarity and the weights of principal shapes.

    The mean shape and the principal shapes are computed from the labels before training and stored
    with the weights, so that every output is a plausible face and the head stays small.
    """

    mean_shape: Tensor  # [478, 2], upright, unit inter-ocular distance, around zero
    shapes: Tensor  # [80, 478, 2], one standard deviation each

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            ConvUnit(48, 48, norm=norm),  # 32 x 32
            ConvUnit(48, 48, norm=norm),
            ConvUnit(48, 80, stride=2, norm=norm),  # 16 x 16
            ResidualUnit(80, norm=norm),
            ConvUnit(80, 128, stride=2, norm=norm),  # 8 x 8
            ResidualUnit(128, norm=norm),
            ResidualUnit(128, norm=norm),
            ConvUnit(128, 24, kernel=1, norm=norm),
        )
        self.hidden = nn.Linear(24 * 8 * 8, 192)
        self.head = nn.Linear(192, 4 + NUM_SHAPES + 3 + 2 + NUM_BLENDSHAPES + 1)
        self.register_buffer("mean_shape", torch.zeros(NUM_POINTS, 2))
        self.register_buffer("shapes", torch.zeros(NUM_SHAPES, NUM_POINTS, 2))

    def forward(self, crops: Tensor) -> LandmarkOutput:
        """Map face crops `[N, 3, 128, 128]` in [-1, 1] to landmarks."""
        features = self.trunk(unshuffled(crops, 4)).flatten(1)
        numbers = self.head(functional.relu(self.hidden(features)))
        similarity, weights, pose, eyes, blendshapes, score = numbers.split(
            (4, NUM_SHAPES, 3, 2, NUM_BLENDSHAPES, 1), dim=1
        )
        shape = self.mean_shape + torch.einsum("nk,kpc->npc", weights, self.shapes)
        a = 0.27 * (1 + similarity[:, 0])  # inter-ocular distance of a centred crop is about 0.27
        b = 0.27 * similarity[:, 1]
        x = a[:, None] * shape[..., 0] - b[:, None] * shape[..., 1]
        y = b[:, None] * shape[..., 0] + a[:, None] * shape[..., 1]
        points = torch.stack((x, y), dim=-1) + 0.5 + 0.27 * similarity[:, None, 2:]
        return LandmarkOutput(
            points=points,
            pose=DEGREES * pose,
            eye_openness=0.3 * (1 + eyes),  # 0.3 is an open eye
            blendshapes=torch.sigmoid(blendshapes),
            score_logit=score[:, 0],
        )
