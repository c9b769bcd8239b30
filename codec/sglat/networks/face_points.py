"""Numbers of MediaPipe's face mesh and blendshapes by region, and pixel weights around regions.

Left and right are the person's own; the right eye lies left in the picture. The order of points
within a region is part of the inputs of trained networks: append only to new regions.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

NUM_POINTS: Final = 478  # the mesh's 468 and five for each iris
NUM_BLENDSHAPES: Final = 52
FIRST_IRIS_POINT: Final = 468

# Six points of each eye, as the eye aspect ratio takes them: a corner, two of the upper lid, the
# other corner, two of the lower lid.
LEFT_EYE: Final = (362, 385, 387, 263, 373, 380)
RIGHT_EYE: Final = (33, 160, 158, 133, 153, 144)
# Both eyes from left to right in the picture: the right one first, its outer corner first.
EYE_CORNERS: Final = ((33, 133), (362, 263))
OUTER_EYE_CORNERS: Final = (33, 263)
LID_MIDDLES: Final = ((159, 145), (386, 374))  # upper, lower
IRISES: Final = (468, 473)  # centres
EYES: Final = (
    362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398,
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, *IRISES,
)  # fmt: skip
BROWS: Final = (
    276, 283, 282, 295, 285, 300, 293, 334, 296, 336, 46, 53, 52, 65, 55, 70, 63, 105, 66, 107,
)  # fmt: skip
LEFT_EYE_AND_BROW: Final = (263, 249, 373, 374, 380, 362, 276, 283, 282, 295, 285, 300, 293, 336)
RIGHT_EYE_AND_BROW: Final = (33, 7, 145, 153, 144, 133, 46, 53, 52, 65, 55, 70, 63, 107)

NOSE_TIP: Final = 1
NOSE_FOOT: Final = (2, 98, 327)
NOSE_BRIDGE: Final = (168, 6, 197)  # moves with the head only

MOUTH_CORNERS: Final = (61, 291)
OUTER_LIPS: Final = (0, 17)  # upper and lower, in the middle
INNER_LIPS: Final = (13, 14)
LIPS: Final = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191,
)  # fmt: skip
CHIN: Final = (152, 148, 176, 149, 150, 136, 377, 400, 378, 379, 365, 199, 200, 18)
JAW: Final = (
    58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 199, 200, 175, 18,
    83, 313,
)  # fmt: skip
LIPS_AND_CHIN: Final = (61, 39, 0, 269, 291, 152, 148, 377, 176, 400, 149, 378)

FACE_OVAL: Final = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
# Points that move with the head and hardly with expression: nose, eye corners, temples.
RIGID: Final = (168, 6, 197, 195, 5, 4, 45, 275, 33, 133, 263, 362, 234, 454)
# Likewise, with the forehead.
RIGID_WITH_FOREHEAD: Final = (
    1, 4, 5, 6, 8, 9, 10, 67, 109, 151, 168, 195, 197, 297, 338, 127, 356, 234, 454, 33, 133, 263,
    362,
)  # fmt: skip

# Blendshapes.
NEUTRAL_SHAPE: Final = 0  # `_neutral`, constant
BLINK_SHAPES: Final = (9, 10)  # eyeBlinkLeft, eyeBlinkRight
GAZE_SHAPES: Final = range(11, 19)  # eyeLook*
JAW_OPEN_SHAPE: Final = 25

_FEATURES: Final = (*((iris,) for iris in IRISES), INNER_LIPS)
_FEATURE_RADII: Final = ((0.075, 0.055), (0.075, 0.055), (0.13, 0.10))  # of the side, x and y


def feature_weights(points: Tensor, side: int, extra: float) -> Tensor:
    """Return pixel weights `[N, 1, side, side]`: 1, rising to `1 + extra` at the centres of eyes
    and mouth of landmarks in crop units (0 to 1), `[N, 478, 2]`."""
    centres = torch.stack([points[:, list(group)].mean(1) for group in _FEATURES], dim=1)
    radii = points.new_tensor(_FEATURE_RADII)
    axis = (torch.arange(side, device=points.device) + 0.5) / side
    dx = (axis - centres[..., :1]) / radii[None, :, :1]  # [N, features, side]
    dy = (axis - centres[..., 1:]) / radii[None, :, 1:]
    bumps = torch.exp(-(dx.square()[:, :, None] + dy.square()[..., None]))
    return 1 + extra * bumps.amax(1, keepdim=True)
