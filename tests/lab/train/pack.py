"""Packs of invented faces and random teachers, in the form of the real ones, made by the test."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STILLS = 16  # of them 12 for validation: one row of its sheet
FRAMES = 12  # of two clips, the second for validation

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


def make_teachers(folder: Path) -> Path:
    """Write a SqueezeNet and an identity network with random weights."""
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
    nodes = [
        helper.make_node(
            "Conv", ["input", "w", "b"], ["c"], kernel_shape=[16, 16], strides=[16, 16],
            pads=[0, 0, 0, 0], group=1,
        ),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["output"]),
    ]  # fmt: skip
    constants = {"w": filters(8, 3, 16), "b": np.zeros(8, np.float32),
                 "shape": np.array([-1, 392])}  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "identity",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 392])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph), folder / "mobilefacenet_id.onnx")
    return folder


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
            buffer = io.BytesIO()
            Image.fromarray(small).resize((side, side)).save(buffer, "WEBP", quality=80)
            info = tarfile.TarInfo(f"{name}.webp")
            info.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(info, buffer)
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
        identity=np.full(count, -1, np.int32),
        clip=np.array(clip),
        frame=np.arange(count, dtype=np.int32),
        grey=np.zeros(count, bool),
        sharpness=zeros,
        quad=np.zeros((count, 4, 2), np.float32),
        source_size=np.full((count, 2), side, np.int32),
    )
