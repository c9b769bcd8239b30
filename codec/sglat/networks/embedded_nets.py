"""The embedded networks of faces: building blocks, landmarks, parsing, identity, and the detector:
one stage, no anchors, one map of scores and boxes at stride 8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sglat.networks.face_points import NUM_BLENDSHAPES, NUM_POINTS
from sglat.networks.faces import PARSING_CLASSES

INPUT_SIZE: Final = 128  # pixels, of all three
NUM_SHAPES: Final = 80  # principal shapes; 0.25 % of the inter-ocular distance is left over
DEGREES: Final = 30.0  # unit of the pose outputs; keeps them near 1
IDENTITY_DIM: Final = 128
WINDOW: Final = (slice(22, 118), slice(16, 112))  # the face itself: rows and columns of the crop


class ConvUnit(nn.Module):
    """Convolution, batch normalisation while training, activation.

    A network in training has the normalisation as a layer of its own (`norm=True`); the shipped one
    has it folded into filters and bias (`norm=False`), see `folded_state`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        norm: bool = False,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm)
        self.norm = nn.BatchNorm2d(out_channels) if norm else None
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H / stride, W / stride]`."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return functional.relu(x, inplace=True) if self.activate else x


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, norm=norm)
        self.second = ConvUnit(channels, channels, norm=norm, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to the same shape."""
        return functional.relu(x + self.second(self.first(x)), inplace=True)


def folded_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a trained network with every normalisation folded into its convolution.

    The result fits the same class built with `norm=False`.
    """
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    for name, module in network.named_modules():
        if not isinstance(module, ConvUnit) or module.norm is None:
            continue
        norm = module.norm
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()  # [O]
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            del state[f"{name}.norm.{key}"]
        state[f"{name}.conv.weight"] = (module.conv.weight * factor[:, None, None, None]).detach()
        state[f"{name}.conv.bias"] = (norm.bias - norm.running_mean * factor).detach()
    return state


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """Move pixel blocks into channels: `[N, C, H, W]` to `[N, C f f, H/f, W/f]`, f the factor."""
    return functional.pixel_unshuffle(x, factor).contiguous(memory_format=torch.channels_last)


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


class ParsingNetwork(nn.Module):
    """A small U-Net that works at half the input's resolution and below."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.at2 = nn.Sequential(
            ConvUnit(12, 32, norm=norm), ConvUnit(32, 32, norm=norm)
        )  # 64 x 64
        self.at4 = nn.Sequential(ConvUnit(32, 48, stride=2, norm=norm), ResidualUnit(48, norm=norm))
        self.at8 = nn.Sequential(ConvUnit(48, 80, stride=2, norm=norm), ResidualUnit(80, norm=norm))
        self.at16 = nn.Sequential(
            ConvUnit(80, 80, stride=2, norm=norm), ResidualUnit(80, norm=norm)
        )  # 8 x 8
        self.context = ConvUnit(80, 80, kernel=1, norm=norm)  # of the whole crop
        self.to_eighth = ConvUnit(80, 80, kernel=1, norm=norm, activate=False)
        self.to_quarter = ConvUnit(64, 48, kernel=1, norm=norm, activate=False)
        self.to_half = ConvUnit(48, 32, kernel=1, norm=norm, activate=False)
        self.merge_eighth = ConvUnit(80, 64, norm=norm)
        self.merge_quarter = ConvUnit(48, 48, norm=norm)
        self.merge_half = ConvUnit(32, 48, norm=norm)
        self.head = nn.Conv2d(48, 4 * len(PARSING_CLASSES), 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Map aligned crops `[N, 3, 128, 128]` in [-1, 1] to class scores `[N, 19, 128, 128]`."""
        half = self.at2(unshuffled(crops, 2))
        quarter = self.at4(half)
        eighth = self.at8(quarter)
        deep = self.at16(eighth)
        deep = deep + self.context(deep.mean(dim=(2, 3), keepdim=True))
        eighth = self.merge_eighth(eighth + _doubled(self.to_eighth(deep)))
        quarter = self.merge_quarter(quarter + _doubled(self.to_quarter(eighth)))
        half = self.merge_half(half + _doubled(self.to_half(quarter)))
        return functional.pixel_shuffle(self.head(half), 2)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class IdentityNetwork(nn.Module):
    """A residual network ending in one learned weight per position and channel."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            ConvUnit(48, 64, norm=norm),  # 24 x 24
            ResidualUnit(64, norm=norm),
            ConvUnit(64, 96, stride=2, norm=norm),  # 12 x 12
            ResidualUnit(96, norm=norm),
            ConvUnit(96, 96, stride=2, norm=norm),  # 6 x 6
            ResidualUnit(96, norm=norm),
        )
        self.gather = nn.Conv2d(96, 192, 6, groups=96)
        self.head = nn.Linear(192, IDENTITY_DIM)

    def forward(self, crops: Tensor) -> Tensor:
        """Map aligned crops `[N, 3, 128, 128]` in [-1, 1] to unit vectors `[N, 128]`."""
        window = crops[:, :, WINDOW[0], WINDOW[1]]
        gathered = self.gather(self.trunk(unshuffled(window, 4))).flatten(1)
        return functional.normalize(self.head(gathered), dim=1)


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
        middle = self.merge_middle(middle + _doubled_plainly(coarse))
        fine = self.merge_fine(fine + _doubled_plainly(middle))
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


def _doubled_plainly(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
