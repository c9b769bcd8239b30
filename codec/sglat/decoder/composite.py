"""The generated crop back in a full frame: placement, feathered mask, colour match."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sglat.decoder.placement import SIZE, crop_to_frame, frame_to_crop, transform_points
from sglat.networks.faces import PARSING_CLASSES
from sglat.networks.pixels import from_pixels, to_pixels

Parse = Callable[[Tensor], Tensor]
"""Aligned crops `[N, 3, H, W]` to class probabilities `[N, 19, H, W]`."""

FACE_CLASSES: Final = tuple(
    PARSING_CLASSES.index(name)
    for name in (
        "skin", "left_brow", "right_brow", "left_eye", "right_eye", "eye_glasses", "nose", "mouth",
        "upper_lip", "lower_lip",
    )
)  # fmt: skip
HEAD_CLASSES: Final = (
    *FACE_CLASSES,
    *(PARSING_CLASSES.index(n) for n in ("left_ear", "right_ear", "earring", "hair", "hat")),
)
AROUND_CLASSES: Final = tuple(PARSING_CLASSES.index(n) for n in ("background", "hair", "hat"))
"""What a wider face must not cover."""
MaskName = Literal["face", "head", "crop"]
MATCH_SIDE: Final = 48  # pixels; colour statistics need no more
RIVAL_EDGE: Final = 0.08  # width of the seam between two faces, in sides of their crops
UNIT_SQUARE: Final = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


@dataclass(frozen=True, kw_only=True)
class CompositeConfig:
    """Mask, softness of the seam and limits of the colour match."""

    mask: MaskName = "face"
    """What is pasted: the parsed face, face with hair, hat and ears, or the whole crop."""
    edge: float = 0.14
    """Width of the fade along the crop's border, as a share of its side."""
    feather: float = 0.05
    """Width of the fade around the parsed face or head, as a share of the crop's side."""
    is_matched: bool = True
    """Match colours to those below."""
    max_gain: float = 1.25
    """Largest gain of contrast by the colour match."""
    min_gain: float = 0.1
    """Smallest gain: a frame that fades to black has nearly no contrast."""
    inertia: float = 0.9
    """Share of the last frame's colour match that stays, so that it does not flicker."""
    jump: float = 0.04
    """Change of the match, on a scale of -1 to 1, at which half of that share stays, so that it
    follows fades."""
    mask_inertia: float = 0.6
    """Share of the last frame's mask that stays, so that the seam does not jitter."""
    least_face: float = 0.5
    """Share of the pasted face that must lie on a parsed face for its outline to count: a dark or
    covered face is parsed too poorly."""


@dataclass(frozen=True, kw_only=True)
class Pasted:
    """A frame with a crop in it."""

    picture: NDArray[np.uint8]
    """`[H, W, 3]` RGB."""
    generated: NDArray[np.float32]
    """Share of the crop in each pixel, `[H, W]` in [0, 1]; the others are the frame's."""


def unpasted(frame: NDArray[np.uint8]) -> Pasted:
    """Return a frame, `[H, W, 3]`, in which nothing is generated."""
    return Pasted(picture=frame, generated=np.zeros(frame.shape[:2], np.float32))


class Compositor:
    """Pastes crops into frames, one after the other.

    Args:
        parse: the bundle's face parsing, for masks of face or head and for the colour match. None
            pastes the whole crop, faded at its border, as for a background plate.
        config: mask, seam and colours.
    """

    def __init__(self, parse: Parse | None = None, config: CompositeConfig | None = None) -> None:
        self.parse = parse
        self.config = config or CompositeConfig()
        self._match: tuple[Tensor, Tensor] | None = None
        self._mask: Tensor | None = None
        self._outline: Tensor | None = None

    def masks(self, crops: Tensor, *, restarts: Sequence[bool] = ()) -> Tensor:
        """Return the opacity of each crop's pixels, and their weight in the colour match.

        Args:
            crops: `[N, 3, R, R]`, consecutive.
            restarts: which of them do not continue the frame before: after a cut, or after frames
                without a face; none if empty.

        Returns:
            `[N, 2, R, R]` in [0, 1]: opacity, weight.
        """
        side = crops.shape[-1]
        edge = edge_mask(side, self.config.edge).to(crops).expand(len(crops), 1, side, side)
        if self.parse is None:
            return torch.cat([edge, edge * (1 - edge)], dim=1)
        classes = self.parse(crops)
        face = feather(classes[:, FACE_CLASSES].sum(dim=1, keepdim=True), self.config.feather)
        shown = face
        if self.config.mask == "head":
            shown = feather(classes[:, HEAD_CLASSES].sum(dim=1, keepdim=True), self.config.feather)
        elif self.config.mask == "crop":
            shown = torch.ones_like(face)
        return self._steadied(torch.cat([shown * edge, face * edge], dim=1), restarts)

    def _steadied(self, masks: Tensor, restarts: Sequence[bool]) -> Tensor:
        """Return masks `[N, 2, R, R]` averaged over time, each with those before it."""
        steady, keep = [], self.config.mask_inertia
        for number, mask in enumerate(masks):
            if self._mask is None or (restarts and restarts[number]):
                self._mask = mask
            self._mask = keep * self._mask + (1 - keep) * mask
            steady.append(self._mask)
        return torch.stack(steady)

    def paste(
        self,
        frame: NDArray[np.uint8],
        crop: Tensor,
        mask: Tensor,
        placement: NDArray[np.floating],
        *,
        is_restart: bool = False,
        rivals: Sequence[tuple[NDArray[np.floating], bool]] = (),
    ) -> Pasted:
        """Return a frame with the crop in its place.

        Args:
            frame: `[H, W, 3]` RGB; not changed.
            crop: `[3, R, R]` in [-1, 1].
            mask: `[2, R, R]` from `masks`.
            placement: centre x, centre y, size (pixels of the frame), roll (degrees), `[4]`.
            is_restart: the frame does not continue the one before; colours are matched afresh.
            rivals: placement `[4]` of each other face in the frame, and whether it is pasted later;
                a pixel under several crops is left to the nearest face.
        """
        if is_restart:
            self._match = self._outline = None
        box = covered_box(placement, frame.shape[1], frame.shape[0])
        if box is None:
            return unpasted(frame)
        left, top, right, bottom = box
        source = torch.from_numpy(frame[top:bottom, left:right].copy())
        ground = from_pixels(source.to(crop.device))
        size = float(placement[SIZE])
        grid = _grid(placement, box).to(crop)
        if self.parse is not None and self.config.mask == "face":
            mask = mask * self._within(frame, placement, mask[:1])
        layers = _shrink(torch.cat([crop, mask])[None], size)
        sampled = functional.grid_sample(
            layers, grid, mode="bilinear", padding_mode="border", align_corners=False
        )[0]
        inside = ((grid.abs() <= 1).all(dim=-1)).to(crop)
        inside = inside * _claim(
            grid, [(_grid(place, box).to(crop), is_later) for place, is_later in rivals]
        )
        alpha, weight = (sampled[3:] * inside).clamp(0, 1).split(1)
        face = sampled[:3]
        if self.config.is_matched:
            face = self._matched(face, ground, weight)
        mixed = ground + alpha * (face - ground)
        pasted = unpasted(frame.copy())
        pasted.picture[top:bottom, left:right] = to_pixels(mixed[None])[0]
        pasted.generated[top:bottom, left:right] = alpha[0].float().cpu().numpy()
        return pasted

    def _within(
        self, frame: NDArray[np.uint8], placement: NDArray[np.floating], mask: Tensor
    ) -> Tensor:
        """Return the outline of the face in the frame, softly, `[1, R, R]`: a wider face is cut
        off there, so that it leaves no rim on background and hair.

        Args:
            frame: `[H, W, 3]`.
            placement: of the crop in it, `[4]`.
            mask: opacity of the face that is pasted, `[1, R, R]`.
        """
        assert self.parse is not None
        classes = self.parse(_cut(frame, placement, mask.shape[-1]).to(mask))
        found = (classes[:, FACE_CLASSES].sum(dim=1) * mask).sum()
        if float(found) < self.config.least_face * float(mask.sum()):
            return torch.ones_like(mask)
        around = classes[:, AROUND_CLASSES].sum(dim=1, keepdim=True)
        outline = 1 - _softened(around, self.config.feather)[0]
        if self._outline is not None:
            keep = self.config.mask_inertia
            outline = keep * self._outline + (1 - keep) * outline
        self._outline = outline
        return outline

    def _matched(self, face: Tensor, ground: Tensor, weight: Tensor) -> Tensor:
        """Return the face with mean and contrast of the pixels it covers, `[3, H, W]`.

        Behind a plate only the fading border is comparable; inside a real frame the face is.
        """
        small = functional.adaptive_avg_pool2d(torch.cat([face, ground, weight]), MATCH_SIDE)
        weight = small[6:].flatten(1)
        total = weight.sum()
        if float(total) < 1e-3:
            return face
        share = weight / total
        mean_face, spread_face = _moments(small[:3].flatten(1), share)
        mean_ground, spread_ground = _moments(small[3:6].flatten(1), share)
        gain = (spread_ground / spread_face.clamp_min(1e-3)).clamp(
            self.config.min_gain, self.config.max_gain
        )
        if self.parse is None:
            gain = torch.ones_like(gain)
        offset = mean_ground - gain * mean_face
        if self._match is not None:
            old_gain, old_offset = self._match
            change = (old_gain * mean_face + old_offset - mean_ground).abs().max()
            keep = self.config.inertia / (1 + (change / self.config.jump).square())
            gain = keep * old_gain + (1 - keep) * gain
            offset = keep * old_offset + (1 - keep) * offset
        self._match = (gain, offset)
        return face * gain[:, None, None] + offset[:, None, None]


def covered_box(
    placement: NDArray[np.floating], width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom of the pixels under the crop; None when it lies outside."""
    corners = transform_points(crop_to_frame(placement), UNIT_SQUARE)
    left, top = np.floor(corners.min(axis=0)).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int)
    left, top = max(int(left), 0), max(int(top), 0)
    right, bottom = min(int(right), width), min(int(bottom), height)
    return (left, top, right, bottom) if right > left and bottom > top else None


def edge_mask(side: int, width: float) -> Tensor:
    """Return `[1, 1, side, side]`: 1 inside, falling smoothly to 0 at the border."""
    place = (torch.arange(side) + 0.5) / side
    ramp = (torch.minimum(place, 1 - place) / max(width, 1e-6)).clamp(0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return torch.outer(smooth, smooth)[None, None]


def feather(mask: Tensor, width: float) -> Tensor:
    """Return masks `[N, 1, R, R]` with holes closed and a border as soft as `width` of the side.

    The border lies mostly inside: what surrounds the face in the crop would be a fringe around it.
    """
    if width <= 0:
        return mask
    reach = max(1, round(width * mask.shape[-1] / 2))
    inner = -_widened(-_widened(mask, reach), 2 * reach)  # closed, then narrowed
    return _softened(inner, width)


def _softened(mask: Tensor, width: float) -> Tensor:
    """Return masks `[N, 1, R, R]` with borders as soft as `width` of the side."""
    if width <= 0:
        return mask
    reach = max(1, round(width * mask.shape[-1] / 2))
    for _ in range(2):  # two boxes make a triangle: no visible corner in the fade
        mask = functional.avg_pool2d(
            mask, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False
        )
    return mask


def _widened(values: Tensor, reach: int) -> Tensor:
    """Return the largest value within `reach` pixels."""
    return functional.max_pool2d(values, 2 * reach + 1, stride=1, padding=reach)


def _grid(placement: NDArray[np.floating], box: tuple[int, int, int, int]) -> Tensor:
    """Return where each pixel of the box lies in the crop, `[1, h, w, 2]` in [-1, 1]."""
    left, top, right, bottom = box
    matrix = frame_to_crop(placement)
    x = np.arange(left, right) + 0.5
    y = np.arange(top, bottom) + 0.5
    u = matrix[0, 0] * x[None] + matrix[0, 1] * y[:, None] + matrix[0, 2]
    v = matrix[1, 0] * x[None] + matrix[1, 1] * y[:, None] + matrix[1, 2]
    return torch.from_numpy(np.stack([u, v], axis=-1)[None] * 2 - 1)


def _claim(grid: Tensor, others: Sequence[tuple[Tensor, bool]]) -> Tensor:
    """Return the share of a face in the pixels of a frame among several faces, `[1, h, w]`: 1 where
    its centre is the nearest one, in sides of the crops, with a soft border.

    Args:
        grid: where the pixels lie in its crop, `[1, h, w, 2]` in [-1, 1].
        others: the same for the crops of the other faces, and whether a face is pasted later; it
            then fades in over this one, which ends behind the seam.
    """
    share, own = torch.ones_like(grid[..., 0]), grid.norm(dim=-1) / 2
    for other, is_later in others:
        nearer = (other.norm(dim=-1) / 2 - own) / RIVAL_EDGE
        share = share * (nearer + (1.5 if is_later else 0.5)).clamp(0, 1)
    return share


def _cut(frame: NDArray[np.uint8], placement: NDArray[np.floating], side: int) -> Tensor:
    """Return the crop of a frame, `[1, 3, side, side]`; its border is repeated outside."""
    matrix = crop_to_frame(placement)
    axis = (np.arange(side) + 0.5) / side
    u, v = np.meshgrid(axis, axis)
    x, y = (row[0] * u + row[1] * v + row[2] for row in matrix)
    grid = np.stack([2 * x / frame.shape[1] - 1, 2 * y / frame.shape[0] - 1], axis=-1)
    picture = from_pixels(torch.from_numpy(frame.copy()))[None]
    return functional.grid_sample(
        picture, torch.from_numpy(grid[None]).to(picture), padding_mode="border",
        align_corners=False,
    )  # fmt: skip


def _shrink(layers: Tensor, size: float) -> Tensor:
    """Return crop layers no finer than the frame shows them, so that nothing aliases."""
    side = max(2, math.ceil(size))
    if side >= layers.shape[-1]:
        return layers
    return functional.interpolate(
        layers, (side, side), mode="bilinear", antialias=True, align_corners=False
    )


def _moments(values: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Return weighted mean and standard deviation of `[3, P]` with weights `[1, P]`."""
    mean = (values * share).sum(dim=1)
    variance = ((values - mean[:, None]).square() * share).sum(dim=1)
    return mean, variance.sqrt()
