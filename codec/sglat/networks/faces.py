"""Interface and results of face analysis, shared by the embedded networks and insightface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Class order of face-parsing.PyTorch; `left` is the pictured person's own left.
PARSING_CLASSES = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "eye_glasses",
    "left_ear", "right_ear", "earring", "nose", "mouth", "upper_lip", "lower_lip", "neck",
    "necklace", "cloth", "hair", "hat",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FaceBox:
    """One detected face."""

    left: float
    """Pixels, like the other three sides; may lie outside the picture."""
    top: float
    right: float
    bottom: float
    score: float
    """0 to 1."""


@dataclass(frozen=True, kw_only=True)
class FaceLandmarks:
    """Landmarks, pose and expression of one face."""

    points: NDArray[np.float32]
    """`[478, 2]`, x and y in pixels of the picture given; MediaPipe order, irises last."""
    yaw_degrees: float
    """Positive when the person turns to their own left: the nose points to the picture's right."""
    pitch_degrees: float
    """Positive when the person looks up."""
    roll_degrees: float
    """Positive when the head is turned counter-clockwise as seen by the viewer."""
    eye_openness: tuple[float, float]
    """Eye aspect ratio of the person's own left and right eye."""
    blendshapes: NDArray[np.float32]
    """`[52]`, 0 to 1, MediaPipe order."""
    score: float
    """Confidence that this is a face, 0 to 1."""


class FaceFinder(Protocol):
    """Detection, landmarks and identity: pictures uint8 RGB `[H, W, 3]`, tensors float32 NCHW in
    [-1, 1]."""

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        """Return all faces, largest first."""

    def landmarks(
        self, picture: NDArray[np.uint8], box: FaceBox, *, previous: FaceLandmarks | None = None
    ) -> FaceLandmarks:
        """Return the landmarks of the face in a box; `previous` smooths tracking over time."""

    def embed(self, crops: Tensor, /) -> Tensor:
        """Return unit identity vectors `[N, D]` of aligned crops, for comparing persons.

        From the best network available, which may lack a gradient.
        """


class FaceAnalysis(FaceFinder, Protocol):
    """Face-analysis interface."""

    def parse(self, crops: Tensor, /) -> Tensor:
        """Return class probabilities `[N, 19, H, W]` of aligned crops `[N, 3, H, W]`."""

    def embed_for_loss(self, crops: Tensor, /) -> Tensor:
        """Return unit identity vectors `[N, D]` of aligned crops, for losses: differentiable.

        Possibly from another network than `embed`'s; never compare vectors of the two.
        """
