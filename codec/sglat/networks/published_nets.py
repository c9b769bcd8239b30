"""Published networks of faces, under the names of their checkpoints: ArcFace and BiSeNet.

ArcFace gives a face's identity as a unit vector, with the preprocessing of e4e's identity loss. Its
trunk IR-SE50, residual with squeeze and excitation, is e4e's too. BiSeNet parses an aligned crop
into 19 classes; the checkpoint (face-parsing.PyTorch) drops the paper's spatial path.

Sources: Deng et al. 2019 (ArcFace), https://arxiv.org/abs/1801.07698, section 3.1; Hu et al. 2018,
https://arxiv.org/abs/1709.01507; Yu et al. 2018 (BiSeNet), https://arxiv.org/abs/1808.00897.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglat.networks.faces import PARSING_CLASSES

STAGES: Final = (
    (64, 3),
    (128, 4),
    (256, 14),
    (512, 3),
)  # channels, blocks; the first of each halves
TAPS: Final = (6, 20, 23)  # last block before 32, 16 and 8 px at 112 px input: e4e's pyramid
_REDUCTION: Final = 16  # squeeze ratio


class SqueezeExcitation(nn.Module):
    """Scale channels by a gate computed from their global averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to the same shape."""
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        excitation: Tensor = self.fc2(self.fc1(squeezed).relu()).sigmoid()
        return x * excitation


class Bottleneck(nn.Module):
    """Pre-normalised residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if inputs != outputs
            else None
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            SqueezeExcitation(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H / stride, W / stride]`."""
        if self.shortcut_layer is None:
            shortcut = x[:, :, :: self.stride, :: self.stride]
        else:
            shortcut = self.shortcut_layer(x)
        output: Tensor = self.res_layer(x) + shortcut
        return output


def at_side(crops: Tensor, side: int) -> Tensor:
    """Bring crops `[N, 3, H, W]` to a side: larger ones by averaging, smaller ones bilinearly."""
    if crops.shape[-1] > side:
        return F.adaptive_avg_pool2d(crops, side)
    if crops.shape[-1] < side:
        return F.interpolate(crops, side, mode="bilinear", align_corners=False)
    return crops


def input_layer() -> nn.Sequential:
    """Return the stem: RGB to 64 channels."""
    return nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))


def body() -> nn.Sequential:
    """Return the 24 blocks."""
    blocks: list[nn.Module] = []
    inputs = 64
    for channels, count in STAGES:
        for position in range(count):
            blocks.append(Bottleneck(inputs, channels, 2 if position == 0 else 1))
            inputs = channels
    return nn.Sequential(*blocks)


EMBEDDING_DIM: Final = 512
IDENTITY_SIZE: Final = 112
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
    """Cut the face out of FFHQ-aligned crops `[N, 3, H, W]`: `[N, 3, 112, 112]`."""
    crops = at_side(crops, ALIGNED_SIZE)
    return F.adaptive_avg_pool2d(crops[:, :, FACE_ROWS, FACE_COLUMNS], IDENTITY_SIZE)


PARSING_SIZE: Final = 512
# Mean and standard deviation of ImageNet's RGB values in 0..1
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)


class ConvBNReLU(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H, W]`."""
        y: Tensor = self.bn(self.conv(x)).relu()
        return y


class BasicBlock(nn.Module):
    """Residual block of ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H / stride, W / stride]`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + shortcut).relu()


class ResNet18(nn.Module):
    """The backbone, with features at 1/8, 1/16 and 1/32 of the resolution.

    Source: He et al. 2016, https://arxiv.org/abs/1512.03385.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of 128, 256 and 512 channels."""
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Scale features by attention over channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, outputs)
        self.conv_atten = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, O, H, W]`."""
        features: Tensor = self.conv(x)
        mean = features.mean(dim=(2, 3), keepdim=True)
        attention: Tensor = self.bn_atten(self.conv_atten(mean)).sigmoid()
        return features * attention


class ContextPath(nn.Module):
    """Backbone features, refined from coarse to fine."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBNReLU(128, 128)
        self.conv_head16 = ConvBNReLU(128, 128)
        self.conv_avg = ConvBNReLU(512, 128, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return spatial features at 1/8 and context features at 1/8 and 1/16."""
        eighth, sixteenth, last = self.resnet(x)
        mean = self.conv_avg(last.mean(dim=(2, 3), keepdim=True))
        coarse = self.arm32(last) + mean
        coarse = self.conv_head32(F.interpolate(coarse, sixteenth.shape[-2:], mode="nearest"))
        middle = self.arm16(sixteenth) + coarse
        middle = self.conv_head16(F.interpolate(middle, eighth.shape[-2:], mode="nearest"))
        return eighth, middle, coarse


class FeatureFusion(nn.Module):
    """Join spatial and context features."""

    def __init__(self) -> None:
        super().__init__()
        self.convblk = ConvBNReLU(256, 256, kernel=1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        """Map two `[N, 128, H, W]` to `[N, 256, H, W]`."""
        features: Tensor = self.convblk(torch.cat([spatial, context], dim=1))
        mean = features.mean(dim=(2, 3), keepdim=True)
        attention: Tensor = self.conv2(self.conv1(mean).relu()).sigmoid()
        return features * attention + features


class OutputHead(nn.Module):
    """Features to class logits at the same resolution."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        super().__init__()
        self.conv = ConvBNReLU(inputs, middle)
        self.conv_out = nn.Conv2d(middle, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, I, H, W]` to `[N, classes, H, W]`."""
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class BiSeNet(nn.Module):
    """Face parsing network."""

    def __init__(self) -> None:
        super().__init__()
        classes = len(PARSING_CLASSES)
        self.cp = ContextPath()
        self.ffm = FeatureFusion()
        self.conv_out = OutputHead(256, 256, classes)
        # the published file carries the heads of training too
        self.conv_out16 = OutputHead(128, 64, classes)
        self.conv_out32 = OutputHead(128, 64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised pictures `[N, 3, H, W]` to logits `[N, 19, H, W]`."""
        spatial, context, _ = self.cp(x)
        logits = self.conv_out(self.ffm(spatial, context))
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=True)

    def parse(self, crops: Tensor) -> Tensor:
        """Map aligned crops `[N, 3, H, W]` in [-1, 1] to class probabilities `[N, 19, H, W]`."""
        mean = crops.new_tensor(IMAGENET_MEAN)[:, None, None]
        std = crops.new_tensor(IMAGENET_STD)[:, None, None]
        x = ((crops + 1) / 2 - mean) / std
        size = (PARSING_SIZE, PARSING_SIZE)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        probabilities: Tensor = self(x).softmax(dim=1)
        if crops.shape[-2:] != size:
            probabilities = F.interpolate(
                probabilities, crops.shape[-2:], mode="bilinear", align_corners=False
            )
        return probabilities
