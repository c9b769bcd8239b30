"""Terms of the paper's losses over regions of the face: METHOD.md, "Losses of the paper's solver".

Every term is a mean over its region, so that their balance depends neither on the resolution nor
on how much of the crop a region takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.encoder.losses import shown_through
from sglat.networks.face_points import (
    EYES,
    JAW,
    LEFT_EYE_AND_BROW,
    LIPS,
    RIGHT_EYE_AND_BROW,
)
from sglat.networks.faces import PARSING_CLASSES
from sglat.networks.perceptual import PerceptualDistance

LOSS_GROUPS: Final = (("mouth", "chin"), ("eyes", "brows"), ("gaze",))
"""Groups of controls that have a loss each."""
GAZE: Final = len(LOSS_GROUPS) - 1
_ONE_EYE: Final = len(EYES) // 2 - 1  # points of a lid's rim; the two iris centres come last
_CONTOURS: Final = (
    ((*LIPS, *JAW),),
    (LEFT_EYE_AND_BROW, RIGHT_EYE_AND_BROW),
    (EYES[:_ONE_EYE], EYES[_ONE_EYE:-2]),
)
_MARGIN: Final = 0.02  # of the crop: a moved lip or lid stays inside its region
_NOT_FACE: Final = (
    "background", "left_ear", "right_ear", "earring", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip
_FACE: Final = [i for i, name in enumerate(PARSING_CLASSES) if name not in _NOT_FACE]


@dataclass(frozen=True, kw_only=True)
class TermWeights:
    """Weights of the terms. The supplement gives none; see METHOD.md, "Readings"."""

    l2: float = 1.0
    perceptual: float = 1.0
    parsing: float = 1.0
    identity: float = 0.1
    inter_frame: float = 2.0


def region_masks(points: NDArray[np.floating], side: int) -> Tensor:
    """Return the region of each group of controls, `[n, 3, side, side]`, 0 or 1.

    Lips and jaw; eyes and brows; eyes. By landmarks in crop units, `[n, 478, 2]`, since face
    parsing has no chin and loses an eye that shuts.
    """
    reach = max(1, round(_MARGIN * side))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    masks = np.zeros((len(points), len(_CONTOURS), side, side), np.uint8)
    for frame, found in enumerate(np.asarray(points, np.float64) * side - 0.5):
        for group, contours in enumerate(_CONTOURS):
            mask = masks[frame, group]
            for contour in contours:
                hull = cv2.convexHull(np.round(found[list(contour)]).astype(np.int32))
                cv2.fillConvexPoly(mask, np.asarray(hull, np.int32), 1)
            masks[frame, group] = cv2.dilate(mask, kernel)
    return torch.from_numpy(masks).float()


def face_mask(classes: Tensor) -> Tensor:
    """Return M, the binary mask of the face, `[n, 1, H, W]`, from class probabilities `[n, 19, H,
    W]`: skin, brows, eyes, glasses, nose, mouth and lips (supplement, equation 1)."""
    labels = classes.argmax(1, keepdim=True)
    faces = torch.tensor(_FACE, device=classes.device)
    return torch.isin(labels, faces).to(classes.dtype)


def norm_over(difference: Tensor, mask: Tensor) -> Tensor:
    """Return the L2 norm of differences `[n, C, H, W]` over masks `[n, 1, H, W]`, divided by the
    root of the number of values there, `[n]`; 0 over nothing.

    The division makes it independent of resolution and region.
    """
    squares = (difference.square() * mask).sum((1, 2, 3))
    values = mask.sum((1, 2, 3)).clamp_min(1.0) * difference.shape[1]
    return (squares / values + 1e-12).sqrt()  # the root has no derivative at 0


def parsing_norm(found: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """Return ‖FP(Ŝ)·M − FP(S)·M‖₂ of class maps `[n, 19, H, W]`, over the root of the pixels of M,
    `[n]`."""
    norm: Tensor = norm_over(found - wanted, mask) * found.shape[1] ** 0.5
    return norm


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture and what the losses read of it, for some frames."""

    pictures: Tensor
    """`[n, 3, H, W]`."""
    features: list[Tensor]
    """Of the perceptual network, `[n, C, h, w]` a level."""

    @classmethod
    def of(cls, pictures: Tensor, network: PerceptualDistance) -> Shown:
        """Read pictures."""
        return cls(pictures=pictures, features=network.features(pictures))

    def behind(self, first: Shown) -> Shown:
        """Return the frames before these: `first`, of one frame, then all but the last."""
        parts = zip(first.features, self.features, strict=True)
        return Shown(
            pictures=torch.cat([first.pictures, self.pictures[:-1]]),
            features=[torch.cat([one, many[:-1]]) for one, many in parts],
        )


@dataclass(frozen=True, kw_only=True)
class Before:
    """What a window of frames follows."""

    rendered: Tensor
    """The frame before, as solved, `[1, 3, H, W]`."""
    target: Tensor
    """`[1, 3, H, W]`."""
    anchor: Tensor
    """Identity vector of the clip's first frame as solved, `[1, D]`."""


class WindowLoss:
    """Losses of the three groups for one window of consecutive frames."""

    def __init__(
        self,
        bundle: Bundle,
        weights: TermWeights,
        targets: Tensor,
        regions: Tensor,
        *,
        follows: Tensor,
        shut: Tensor,
        before: Before | None = None,
        visible: Tensor | None = None,
    ) -> None:
        """Read the targets once.

        Args:
            bundle: perceptual, face-parsing and identity networks.
            weights: of the terms.
            targets: `[n, 3, H, W]`.
            regions: see `region_masks`, `[n, 3, H, W]`.
            follows: `[n]` bool: the frame continues the one before it.
            shut: `[n]` bool: an eye is shut.
            before: the frame before the window and the clip's first; None at the clip's first.
            visible: `[n, 1, H, W]`, 0 where nothing is compared; None compares all.
        """
        self.bundle, self.weights, self.visible = bundle, weights, visible
        self.regions, self.follows, self.open = regions, follows.float(), (~shut).float()
        self.before = before
        with torch.no_grad():
            self.targets = Shown.of(targets, bundle.perceptual)
            self.classes = bundle.faces.parse(targets)
            self.mask = face_mask(self.classes)
            if visible is not None:
                self.mask = self.mask * visible
                self.regions = regions * visible
            first = targets[:1] if before is None else before.target
            self.last_target = Shown.of(first, bundle.perceptual)
            shown = targets[:1] if before is None else before.rendered
            self.last_shown = Shown.of(shown, bundle.perceptual)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the loss of each group, mean over the frames, `[3]`; pictures `[n, 3, H, W]`."""
        weights = vars(self.weights)
        found = [
            sum(weights[name] * t.mean() for name, t in g.items()) for g in self.terms(pictures)
        ]
        return torch.stack([torch.as_tensor(total) for total in found])

    def terms(self, pictures: Tensor) -> list[dict[str, Tensor]]:
        """Return the terms of each group by name, `[n]` each, not yet weighted."""
        if self.visible is not None:
            pictures = shown_through(pictures, self.targets.pictures, self.visible)
        shown = Shown.of(pictures, self.bundle.perceptual)
        parsed = self.bundle.faces.parse(pictures)
        shared = {
            "parsing": parsing_norm(parsed, self.classes, self.mask),
            "identity": self._identity(pictures),
        }
        return [shared | self._of_group(shown, group) for group in range(len(LOSS_GROUPS))]

    def _identity(self, pictures: Tensor) -> Tensor:
        """Return 1 − cos(φ(Ŝ_1), φ(Ŝ_t)): against the first frame of the clip, as rendered."""
        embedded = self.bundle.faces.embed_for_loss(pictures)
        anchor = embedded[:1].detach() if self.before is None else self.before.anchor
        return 1 - (embedded * anchor).sum(1)

    def _of_group(self, shown: Shown, group: int) -> dict[str, Tensor]:
        region = self.regions[:, group : group + 1]
        error = norm_over(shown.pictures - self.targets.pictures, region)
        behind = self.targets.behind(self.last_target), shown.behind(self.last_shown)
        wanted, found = (
            norm_over(now.pictures - then.pictures, region)
            for now, then in zip((self.targets, shown), behind, strict=True)
        )
        change = (wanted - found).abs()
        if group == GAZE:  # LPIPS misses small shifts of an iris; a shut eye shows none
            return {"l2": error * self.open, "inter_frame": change * self.follows * self.open}
        distance = self.bundle.perceptual.distance
        wanted, found = (
            distance(now.features, then.features, region)
            for now, then in zip((self.targets, shown), behind, strict=True)
        )
        return {
            "l2": error,
            "perceptual": distance(shown.features, self.targets.features, region),
            "inter_frame": (change + (wanted - found).abs()) * self.follows,
        }
