"""Frozen public networks: perceptual distance and identity (losses and metrics), head pose.

Their weights are never shipped; each constructor takes where they lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.errors import UsageError
from sglat.networks.face_analysis import similarity
from sglat.networks.face_points import LEFT_EYE, MOUTH_CORNERS, NOSE_TIP, RIGHT_EYE

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_KERAS_MEAN_BGR = (103.939, 116.779, 123.68)
_FIRES: Final = (
    ((3, 4), True), ((6, 7), True), ((9,), True), ((10,), False), ((11,), False), ((12,), False),
)  # fmt: skip
"""SqueezeNet's fire modules of each level after the first, and whether pooling precedes them."""
# Fixed window of an FFHQ-style crop that brings the mean eye centres onto the 112 px ArcFace
# template: pixels a crop unit = (73.53 - 38.29) / (0.620 - 0.376); the eye midpoint goes to (55.9,
# 51.6).
_TEMPLATE_SCALE = 144.4
_TEMPLATE_ORIGIN = (0.498 - 55.9 / _TEMPLATE_SCALE, 0.472 - 51.6 / _TEMPLATE_SCALE)

# Eyes, nose tip and mouth corners in the teacher's 112 px input, left to right.
TEMPLATE: Final = np.array(((38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)))
TEMPLATE_SIZE: Final = 112


def imagenet_normalized(images: Tensor) -> Tensor:
    """Bring images in [-1, 1] to the statistics of ImageNet networks."""
    mean = images.new_tensor(_IMAGENET_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(_IMAGENET_STD).view(1, 3, 1, 1)
    return ((images + 1) / 2 - mean) / std


def squeeze_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return SqueezeNet's features under torchvision's names, from an `.npz` or from the `.h5` of
    keras-squeezenet.

    The latter takes BGR of 0 to 255 minus its mean: colour order, scale and mean go into the first
    layer, so that ImageNet-normalised RGB is right.

    Raises:
        UsageError: another file.
    """
    if path.suffix != ".h5":
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}
    found: dict[str, NDArray[np.float32]] = {}
    try:
        with h5py.File(path) as file:
            weight, bias = _layer_of(file, "conv1")
            weight = weight[:, ::-1]
            shift = 255 * np.array(_IMAGENET_MEAN) - np.array(_KERAS_MEAN_BGR)[::-1]
            bias = bias + np.einsum("oihw,i->o", weight, shift)
            weight = weight * (255 * np.array(_IMAGENET_STD))[:, None, None]
            found |= _named("features.0", weight, bias)
            fires = [fire for level, _ in _FIRES for fire in level]
            for number, index in enumerate(fires, start=2):
                for part in ("squeeze1x1", "expand1x1", "expand3x3"):
                    layer = _layer_of(file, f"fire{number}/{part}")
                    found |= _named(f"features.{index}.{part}", *layer)
    except (OSError, KeyError) as error:
        raise UsageError(
            "not-squeezenet", f"expected the weights of keras-squeezenet in {path}: {error}"
        ) from error
    return found


def _layer_of(file: h5py.File, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return filters `[O, I, h, w]` and bias `[O]` of a layer."""
    arrays: list[NDArray[np.float64]] = []

    def collect(_: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset):
            arrays.append(np.asarray(entry[()], np.float64))

    file[name].visititems(collect)
    by_rank = {array.ndim: array for array in arrays}
    return by_rank[4].transpose(3, 2, 0, 1), by_rank[1]


def _named(
    name: str, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> dict[str, NDArray[np.float32]]:
    return {
        f"{name}.weight": weight.astype(np.float32), f"{name}.bias": bias.astype(np.float32)
    }  # fmt: skip


class SqueezePerceptual(nn.Module):
    """SqueezeNet 1.1 features compared as LPIPS does (Zhang et al. 2018, equation 1).

    With `heads` (the published v0.1 SqueezeNet heads) the scale is that of LPIPS-squeeze; the
    feature weights are not shown to be the ones the heads were fitted on, so call the result
    LPIPS-like.
    """

    def __init__(self, features_file: Path, heads_file: Path | None = None) -> None:
        super().__init__()
        for key, values in squeeze_weights(features_file).items():
            self.register_buffer(key.replace(".", "_"), torch.from_numpy(values).float())
        self.heads = None if heads_file is None else load_lpips_heads(heads_file)

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight = getattr(self, f"{name}_weight").contiguous(memory_format=torch.channels_last)
        return F.relu(F.conv2d(x, weight, getattr(self, f"{name}_bias"), stride, padding))

    def _fire(self, x: Tensor, index: int) -> Tensor:
        squeezed = self._conv(x, f"features_{index}_squeeze1x1")
        return torch.cat(
            [
                self._conv(squeezed, f"features_{index}_expand1x1"),
                self._conv(squeezed, f"features_{index}_expand3x3", padding=1),
            ],
            1,
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Return seven unit-normalised feature maps of images in [-1, 1], `[N, 3, H, W]`."""
        raw = [last for _, last in self.levels(images, len(_FIRES))]
        return [m / (m.square().sum(1, keepdim=True).sqrt() + 1e-8) for m in raw]

    def levels(self, images: Tensor, last: int) -> list[tuple[Tensor | None, Tensor]]:
        """Return the features of levels 0 to `last` of images, not normalised.

        Each stands behind the output of its first fire module, or None where it has fewer than two.
        """
        x = imagenet_normalized(images).contiguous(memory_format=torch.channels_last)
        found: list[tuple[Tensor | None, Tensor]] = [(None, self._conv(x, "features_0", stride=2))]
        for fires, is_halved in _FIRES[:last]:
            x = found[-1][1]
            if is_halved:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            outputs = list(accumulate(fires, self._fire, initial=x))[1:]
            found.append((outputs[0] if len(fires) > 1 else None, outputs[-1]))
        return found

    def distance(self, a: list[Tensor], b: list[Tensor], *, use_heads: bool = False) -> Tensor:
        """Return distances of two feature lists, `[N]`."""
        maps = self.maps(a, b, use_heads=use_heads)
        return torch.stack([m.mean((1, 2)) for m in maps]).sum(0)

    def maps(self, a: list[Tensor], b: list[Tensor], *, use_heads: bool = True) -> list[Tensor]:
        """Return the distance of two feature lists at every place, seven maps `[N, h, w]`."""
        if use_heads and self.heads is None:
            raise ValueError("no LPIPS heads were given")
        heads = (self.heads if use_heads else None) or [torch.ones(())] * len(a)
        return [((p - q).square() * head).sum(1) for p, q, head in zip(a, b, heads, strict=True)]

    def forward(self, a: Tensor, b: Tensor, *, use_heads: bool = False) -> Tensor:
        """Return distances `[N]` of images in [-1, 1]; the gradient flows to `a` only."""
        with torch.no_grad():
            target = self.features(b)
        return self.distance(self.features(a), target, use_heads=use_heads)


class MobileFaceIdentity(nn.Module):
    """MobileFaceNet embedding read from its ONNX file and run by torch, so that gradients flow."""

    def __init__(self, onnx_file: Path) -> None:
        super().__init__()
        import onnx

        graph = onnx.load(str(onnx_file)).graph
        for tensor in graph.initializer:
            values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
            self.register_buffer(_buffer_name(tensor.name), values)
        self.steps: list[tuple[str, list[str], str, tuple[int, int, int]]] = []
        for node in graph.node:
            if node.op_type == "Constant":
                continue
            numbers = {a.name: [int(i) for i in a.ints] or [int(a.i)] for a in node.attribute}
            geometry = (0, 0, 0)
            if node.op_type == "Conv":
                geometry = (numbers["strides"][0], numbers["pads"][0], numbers["group"][0])
            self.steps.append((node.op_type, list(node.input), node.output[0], geometry))

    def forward(self, crops: Tensor) -> Tensor:
        """Return unit vectors `[N, 128]` of FFHQ-style aligned crops in [-1, 1], `[N, 3, H, W]`."""
        x = imagenet_normalized(template_window(crops))
        values = {self.steps[0][1][0]: x.contiguous(memory_format=torch.channels_last)}
        result = x
        for operation, inputs, output, (stride, pad, groups) in self.steps:
            source = values[inputs[0]]
            if operation == "Conv":
                weight, bias = (getattr(self, _buffer_name(name)) for name in inputs[1:])
                result = F.conv2d(source, weight, bias, stride, pad, groups=groups)
            elif operation == "Clip":
                result = source.clamp(0, 6)
            elif operation == "Relu":
                result = F.relu(source)
            elif operation == "Add":
                result = source + values[inputs[1]]
            elif operation == "Reshape":
                result = source.flatten(1)
            else:
                raise ValueError(f"unexpected operation {operation} in the identity network")
            values[output] = result
        return F.normalize(result)


def template_window(crops: Tensor) -> Tensor:
    """Cut the fixed 112 px ArcFace window out of FFHQ-style crops, `[N, 3, 112, 112]`."""
    span = 112 / _TEMPLATE_SCALE
    # crop unit u in [0, 1] is 2u - 1 in grid units; output pixel centres at (i + 0.5) / 112
    theta = crops.new_tensor(
        [
            [span, 0.0, 2 * _TEMPLATE_ORIGIN[0] - 1 + span],
            [0.0, span, 2 * _TEMPLATE_ORIGIN[1] - 1 + span],
        ]
    ).expand(len(crops), 2, 3)
    if crops.shape[-1] > 2 * 112 / span:  # avoid aliasing from large crops
        crops = F.interpolate(crops, size=(144, 144), mode="area")
    grid = F.affine_grid(theta, [len(crops), 3, 112, 112], align_corners=False)
    return F.grid_sample(crops, grid, padding_mode="border", align_corners=False)


def five_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return eyes, nose tip and mouth corners `[5, 2]`, left to right as seen, of `[478, 2]`."""
    eyes = (points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0))
    return np.stack((*eyes, points[NOSE_TIP], *points[list(MOUTH_CORNERS)]))


def align_for_teacher(
    picture: NDArray[np.uint8], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the teacher's input `[3, 112, 112]` of a face with landmarks in pixels."""
    import cv2

    matrix = np.column_stack(similarity(five_points(points).astype(np.float64), TEMPLATE))
    size = (TEMPLATE_SIZE, TEMPLATE_SIZE)
    aligned = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_AREA)
    mean, deviation = (np.array(v, np.float32) for v in (_IMAGENET_MEAN, _IMAGENET_STD))
    normal = (aligned.astype(np.float32) / 255 - mean) / deviation
    return np.ascontiguousarray(normal.transpose(2, 0, 1), np.float32)


def aligned_vectors(
    network: Path, faces: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]], threads: int = 0
) -> NDArray[np.float32]:
    """Return MobileFaceNet's unit vectors `[N, 128]` of pictures aligned by their landmarks.

    Args:
        network: its ONNX file.
        faces: pictures `[H, W, 3]` and landmarks in pixels, `[478, 2]`.
        threads: of onnxruntime; 0: its own choice.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(network), options)
    inputs = (align_for_teacher(picture, points)[None] for picture, points in faces)
    vectors = np.stack([session.run(None, {"input0": x})[0][0] for x in inputs])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def pair_auc(vectors: NDArray[np.float32], persons: NDArray[np.generic]) -> float:
    """Return the area under the ROC curve of same/different person over all pairs."""
    first, second = np.triu_indices(len(persons), 1)
    cosine = (vectors[first] * vectors[second]).sum(1)
    same = persons[first] == persons[second]
    ranks = cosine.argsort().argsort() + 1.0
    positives, negatives = int(same.sum()), int((~same).sum())
    return float((ranks[same].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _buffer_name(name: str) -> str:
    return "w_" + "".join(c if c.isalnum() else "_" for c in name)


def load_lpips_heads(file: Path) -> list[Tensor]:
    """Read the seven 1x1 heads of LPIPS v0.1 for SqueezeNet, each `[1, C, 1, 1]`."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    return [state[f"lin{i}.model.1.weight"].view(1, -1, 1, 1) for i in range(7)]


class FsaNetPair:
    """Yaw and pitch by the mean of two FSA-Nets, with the signs of the packs' labels.

    Args:
        folder: of the measuring networks.

    Raises:
        UsageError: files or onnxruntime are not at hand.
    """

    FILES: Final = ("headpose_fsanet_1x1.onnx", "headpose_fsanet_var.onnx")
    STRETCH: Final = 0.15  # of the landmark box's height, upwards
    SIDE: Final = 64  # pixels

    def __init__(self, folder: Path) -> None:
        if not all((folder / name).is_file() for name in self.FILES):
            raise UsageError("no-file", f"expected {' and '.join(self.FILES)} in {folder}")
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError("no-package", "expected the Python package onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = [
            onnxruntime.InferenceSession(str(folder / name), options) for name in self.FILES
        ]

    def angles(
        self, picture: NDArray[np.uint8], points: NDArray[np.float32]
    ) -> tuple[float, float]:
        """Return yaw and pitch in degrees.

        Args:
            picture: `[H, W, 3]` RGB.
            points: landmarks in pixels, `[K, 2]`.
        """
        import cv2

        (left, top), (right, bottom) = points.min(0), points.max(0)
        top -= self.STRETCH * (bottom - top)
        size = picture.shape[1], picture.shape[0]
        low, high = (
            np.array(corner).round().clip(0, size).astype(int)
            for corner in ((left, top), (right, bottom))
        )
        face = cv2.resize(picture[low[1] : high[1], low[0] : high[0]], (self.SIDE, self.SIDE))
        x = ((face[:, :, ::-1].astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
        yaw, pitch, _ = np.mean([s.run(None, {"input": x})[0][0] for s in self._sessions], 0)
        return -float(yaw), float(pitch)
