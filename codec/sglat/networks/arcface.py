"""ArcFace with the IR-SE50 trunk: a face's identity as a unit vector.

Source: Deng et al. 2019, https://arxiv.org/abs/1801.07698; preprocessing as in e4e's identity loss.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.irse import body, input_layer

EMBEDDING_DIM: Final = 512
INPUT_SIZE: Final = 112
ALIGNED_SIZE: Final = 256
FACE_ROWS: Final = slice(35, 223)  # the face inside an FFHQ-aligned crop of 256 px
FACE_COLUMNS: Final = slice(32, 220)


class ArcFace(nn.Module):
    """Identity network of faces of 112 px."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = input_layer()
        self.body = body()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, EMBEDDING_DIM),
            nn.BatchNorm1d(EMBEDDING_DIM),
        )

    def forward(self, faces: Tensor) -> Tensor:
        """Map faces `[N, 3, 112, 112]` in [-1, 1] to unit vectors `[N, 512]`."""
        return F.normalize(self.output_layer(self.body(self.input_layer(faces))), dim=1)

    def embed(self, crops: Tensor) -> Tensor:
        """Map FFHQ-aligned crops `[N, 3, H, W]` in [-1, 1] to unit vectors `[N, 512]`."""
        embedding: Tensor = self(face_of_crop(crops))
        return embedding


def face_of_crop(crops: Tensor) -> Tensor:
    """Cut the face out of FFHQ-aligned crops `[N, 3, H, W]`: `[N, 3, 112, 112]`.

    Crops of another size than 256 px are brought there first: larger ones by averaging, smaller
    ones bilinearly.
    """
    if crops.shape[-1] > ALIGNED_SIZE:
        crops = F.adaptive_avg_pool2d(crops, ALIGNED_SIZE)
    elif crops.shape[-1] < ALIGNED_SIZE:
        crops = F.interpolate(crops, ALIGNED_SIZE, mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(crops[:, :, FACE_ROWS, FACE_COLUMNS], INPUT_SIZE)
