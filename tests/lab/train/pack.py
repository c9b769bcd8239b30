"""Synthetic training packs and random teacher networks in the layout of the real ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

STILLS = 16  # of them 12 for validation: one row of its sheet
FRAMES = 12  # of two clips, the second for validation
PARSED = 108  # pictures with class maps, of which 100 are held back

# SqueezeNet 1.1's fire modules: inputs, squeezed, expanded by each of two branches
_FIRES = {
    3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192),
    10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256),
}  # fmt: skip


def make_packs(folder: Path) -> Path:
    """Write one pack of stills and two of frames."""
    random = np.random.default_rng(0)
    _write(folder / "faces128", random, STILLS, 128, clips=None)
    _write(folder / "faces256", random, FRAMES, 160, clips=("train_clip", "val_clip"))
    _write(folder / "faces256b", random, 2, 160, clips=("train_other",))
    return folder


def make_parsing(folder: Path) -> Path:
    """Write the parsing pack: noise with the rectangle of one class on skin."""
    (folder / "parsing256").mkdir(parents=True)
    random = np.random.default_rng(2)
    with tarfile.open(folder / "parsing256" / "parsing.tar", "w") as tar:
        for index in range(PARSED):
            mask = np.ones((256, 256), np.uint8)
            mask[64:192, 64:192] = index % 19
            picture = random.integers(0, 255, (8, 8, 3), np.uint8)
            _add(tar, f"{index:05d}.webp", Image.fromarray(picture).resize((256, 256)), "WEBP")
            _add(tar, f"{index:05d}.png", Image.fromarray(mask), "PNG")
    return folder


def make_teachers(folder: Path) -> Path:
    """Write a SqueezeNet, its LPIPS heads and an identity network with random weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True)
    random = np.random.default_rng(1)

    def filters(outputs: int, inputs: int, side: int) -> NDArray[np.float32]:
        scale = np.sqrt(2 / (inputs * side * side))
        return (random.normal(size=(outputs, inputs, side, side)) * scale).astype(np.float32)

    weights = {"features.0.weight": filters(64, 3, 3), "features.0.bias": np.zeros(64, np.float32)}
    for index, (inputs, squeezed, expanded) in _FIRES.items():
        layers = (("squeeze1x1", squeezed, inputs, 1), ("expand1x1", expanded, squeezed, 1),
                  ("expand3x3", expanded, squeezed, 3))  # fmt: skip
        for name, outputs, ins, side in layers:
            weights[f"features.{index}.{name}.weight"] = filters(outputs, ins, side)
            weights[f"features.{index}.{name}.bias"] = np.zeros(outputs, np.float32)
    np.savez(folder / "squeezenet1_1_features.npz", **weights)  # type: ignore[arg-type]
    channels = (64, 128, 256, 384, 384, 512, 512)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
    torch.save(heads, folder / "squeeze.pth")
    nodes = [
        _convolution("input0", "fine", side=16, stride=16),
        helper.make_node("Relu", ["fine"], ["positive"]),
        _convolution("positive", "coarse", side=7, stride=1),
        helper.make_node("Reshape", ["coarse", "shape"], ["output"]),
    ]
    constants = {
        "fine.w": filters(8, 3, 16), "fine.b": np.zeros(8, np.float32),
        "coarse.w": filters(128, 8, 7), "coarse.b": np.zeros(128, np.float32),
        "shape": np.array([-1, 128]),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "identity",
        [helper.make_tensor_value_info("input0", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 128])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph), folder / "mobilefacenet_id.onnx")
    return folder


def _convolution(source: str, name: str, *, side: int, stride: int) -> Any:
    from onnx import helper

    return helper.make_node(
        "Conv", [source, f"{name}.w", f"{name}.b"], [name], kernel_shape=[side, side],
        strides=[stride, stride], pads=[0, 0, 0, 0], group=1,
    )  # fmt: skip


def _write(
    folder: Path,
    random: np.random.Generator,
    count: int,
    side: int,
    *,
    clips: tuple[str, ...] | None,
) -> None:
    folder.mkdir(parents=True)
    names = [f"{folder.name}_{i:03d}" for i in range(count)]
    clip = [""] * count if clips is None else [clips[i * len(clips) // count] for i in range(count)]
    is_val = [c == "val_clip" if clips else i >= count - 12 for i, c in enumerate(clip)]
    with tarfile.open(folder / "images.tar", "w") as tar:
        for name in names:
            small = random.integers(0, 255, (8, 8, 3), np.uint8)
            _add(tar, f"{name}.webp", Image.fromarray(small).resize((side, side)), "WEBP")
    zeros = np.zeros(count, np.float32)
    np.savez(
        folder / "labels.npz",
        name=np.array(names),
        source=np.array(["invented"] * count),
        split=np.array(["val" if val else "train" for val in is_val]),
        landmarks478=random.uniform(0.3, 0.7, (count, 478, 2)).astype(np.float16),
        blendshapes52=random.uniform(0, 1, (count, 52)).astype(np.float16),
        blendshape_names=np.array(
            [f"shape{i}{side}" for i in range(26) for side in ("Left", "Right")]
        ),
        yaw=random.normal(0, 8, count).astype(np.float32),
        pitch=random.normal(0, 8, count).astype(np.float32),
        roll=zeros,
        ear_left=zeros,
        ear_right=zeros,
        identity=np.arange(count, dtype=np.int32) // 2,
        clip=np.array(clip),
        frame=np.arange(count, dtype=np.int32),
        grey=np.zeros(count, bool),
        sharpness=zeros,
        quad=np.zeros((count, 4, 2), np.float32),
        source_size=np.full((count, 2), side, np.int32),
    )


def _add(tar: tarfile.TarFile, name: str, picture: Image.Image, kind: str) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=80)
    info = tarfile.TarInfo(name)
    info.size = buffer.tell()
    buffer.seek(0)
    tar.addfile(info, buffer)
