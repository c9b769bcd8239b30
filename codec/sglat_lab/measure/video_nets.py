"""The networks of FID and FVD: Inception v3 as TensorFlow's 2015 graph has it, and I3D.

Own definitions under the tensor names of two published state dicts: pytorch-fid's port of the graph
that the original FID uses, and pytorch-i3d's of the Kinetics-400 model. Nothing stored in a file is
executed.

Sources: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567; Heusel et al. 2017,
https://arxiv.org/abs/1706.08500; Carreira and Zisserman 2017, https://arxiv.org/abs/1705.07750.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INCEPTION_SIDE: Final = 299
INCEPTION_FEATURES: Final = 2048
I3D_SIDE: Final = 224
I3D_FEATURES: Final = 400
I3D_FRAMES: Final = 9
"""Fewest frames whose features reach the last pooling window."""
_EPSILON: Final = 0.001  # of all batch normalisations

Size = int | tuple[int, int]


class _Conv(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Size, *, stride: int = 1, padding: Size = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x)).relu()
        return y


def _mean_of_neighbours(x: Tensor) -> Tensor:
    """Average 3 x 3 places; TensorFlow leaves the padding out of the average."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _BlockA(nn.Module):
    """35 x 35: 1 x 1, 5 x 5, two 3 x 3, pooling."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = _Conv(inputs, 64, 1)
        self.branch5x5_1 = _Conv(inputs, 48, 1)
        self.branch5x5_2 = _Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = _Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, padding=1)
        self.branch_pool = _Conv(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        wide = self.branch5x5_2(self.branch5x5_1(x))
        pool = self.branch_pool(_mean_of_neighbours(x))
        return torch.cat([self.branch1x1(x), wide, double, pool], 1)


class _BlockB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = _Conv(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = _Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = _Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = _Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class _BlockC(nn.Module):
    """17 x 17: filters of 1 x 7 and 7 x 1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        row: tuple[Size, Size] = ((1, 7), (0, 3))
        column: tuple[Size, Size] = ((7, 1), (3, 0))
        self.branch1x1 = _Conv(inputs, 192, 1)
        self.branch7x7_1 = _Conv(inputs, width, 1)
        self.branch7x7_2 = _Conv(width, width, row[0], padding=row[1])
        self.branch7x7_3 = _Conv(width, 192, column[0], padding=column[1])
        self.branch7x7dbl_1 = _Conv(inputs, width, 1)
        self.branch7x7dbl_2 = _Conv(width, width, column[0], padding=column[1])
        self.branch7x7dbl_3 = _Conv(width, width, row[0], padding=row[1])
        self.branch7x7dbl_4 = _Conv(width, width, column[0], padding=column[1])
        self.branch7x7dbl_5 = _Conv(width, 192, row[0], padding=row[1])
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        pool = self.branch_pool(_mean_of_neighbours(x))
        return torch.cat([self.branch1x1(x), once, twice, pool], 1)


class _BlockD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = _Conv(inputs, 192, 1)
        self.branch3x3_2 = _Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = _Conv(inputs, 192, 1)
        self.branch7x7x3_2 = _Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _Conv(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        narrow = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([narrow, self.branch7x7x3_4(wide), F.max_pool2d(x, 3, stride=2)], 1)


class _BlockE(nn.Module):
    """8 x 8: branches that fork; the last block of the 2015 graph pools by the maximum."""

    def __init__(self, inputs: int, *, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        self.branch1x1 = _Conv(inputs, 320, 1)
        self.branch3x3_1 = _Conv(inputs, 384, 1)
        self.branch3x3_2a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = _Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = _Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _Conv(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = _Conv(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = _Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        near = F.max_pool2d(x, 3, stride=1, padding=1) if self.is_last else _mean_of_neighbours(x)
        parts = [
            self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice), self.branch_pool(near),
        ]  # fmt: skip
        return torch.cat(parts, 1)


class InceptionV3(nn.Module):
    """Features of FID: the last pooling of the 2015 graph."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c = _BlockA(192, 32), _BlockA(256, 64)
        self.Mixed_5d, self.Mixed_6a = _BlockA(288, 64), _BlockB(288)
        self.Mixed_6b, self.Mixed_6c = _BlockC(768, 128), _BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = _BlockC(768, 160), _BlockC(768, 192)
        self.Mixed_7a = _BlockD(768)
        self.Mixed_7b, self.Mixed_7c = _BlockE(1280, is_last=False), _BlockE(2048, is_last=True)
        self.fc = nn.Linear(INCEPTION_FEATURES, 1008)  # in the file; not used

    def forward(self, pictures: Tensor) -> Tensor:
        """Map pictures `[N, 3, H, W]` in [-1, 1], resized to 299 px, to features `[N, 2048]`."""
        size = (INCEPTION_SIDE, INCEPTION_SIDE)
        x = F.interpolate(pictures, size, mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, stride=2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, stride=2))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(x)))
        features: Tensor = self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))
        return features


def _same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Pad `[N, C, T, H, W]` by zeros as TensorFlow's `SAME` does: the odd place behind."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class _Unit(nn.Module):
    """Convolution, batch normalisation, ReLU over time and space; `plain`: a bias and no more."""

    def __init__(
        self, inputs: int, outputs: int, side: int, *, stride: int = 1, is_plain: bool = False
    ) -> None:
        super().__init__()
        self.kernel, self.stride = (side,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, side, stride, bias=is_plain)
        if not is_plain:
            self.bn = nn.BatchNorm3d(outputs, eps=_EPSILON)
        self.is_plain = is_plain

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3d(_same(x, self.kernel, self.stride))
        if not self.is_plain:
            y = self.bn(y).relu()
        return y


def _pooled(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Take maxima; zeros pad, which changes nothing behind a ReLU."""
    return F.max_pool3d(_same(x, kernel, stride), kernel, stride)


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, narrow, three, thin, small, pooled = widths
        self.b0 = _Unit(inputs, one, 1)
        self.b1a, self.b1b = _Unit(inputs, narrow, 1), _Unit(narrow, three, 3)
        self.b2a, self.b2b = _Unit(inputs, thin, 1), _Unit(thin, small, 3)
        self.b3b = _Unit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.b3b(_pooled(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), near], 1)


class I3D(nn.Module):
    """Features of FVD: the 400 logits, averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = _Unit(64, 64, 1), _Unit(64, 192, 3)
        self.Mixed_3b = _Mixed(192, (64, 96, 128, 16, 32, 32))
        self.Mixed_3c = _Mixed(256, (128, 128, 192, 32, 96, 64))
        self.Mixed_4b = _Mixed(480, (192, 96, 208, 16, 48, 64))
        self.Mixed_4c = _Mixed(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = _Mixed(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = _Mixed(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = _Mixed(528, (256, 160, 320, 32, 128, 128))
        self.Mixed_5b = _Mixed(832, (256, 160, 320, 32, 128, 128))
        self.Mixed_5c = _Mixed(832, (384, 192, 384, 48, 128, 128))
        self.logits = _Unit(1024, I3D_FEATURES, 1, is_plain=True)

    def forward(self, video: Tensor) -> Tensor:
        """Map videos `[N, 3, T, 224, 224]` in [-1, 1] of 9 frames or more to `[N, 400]`."""
        x = _pooled(self.Conv3d_1a_7x7(video), (1, 3, 3), (1, 2, 2))
        x = _pooled(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = _pooled(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
        x = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))))
        x = self.Mixed_5c(self.Mixed_5b(_pooled(x, (2, 2, 2), (2, 2, 2))))
        found: Tensor = self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return found.mean((2, 3, 4))
