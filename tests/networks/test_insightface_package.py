"""The real insightface package behind our back-end, on tiny networks that answer predictably.

The files have the names, inputs and outputs of the published pack; what they compute is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sglat.errors import BundleError
from sglat.networks import face_analysis as backend
from sglat.networks.face_analysis import InsightFaceFinder, choose_finder
from sglat.networks.faces import FaceBox, FaceLandmarks
from tests.support.tolerances import PLACEMENT_PIXELS, SAME_NETWORK_COSINE

pytest.importorskip("insightface", reason="needs the real insightface package")
onnx = pytest.importorskip("onnx", reason="needs onnx to write the networks")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

_POINTS = np.random.default_rng(3).uniform(-0.6, 0.6, (106, 2)).astype(np.float32)
_MIXING = np.random.default_rng(4).normal(size=(147, 512)).astype(np.float32)


class Embedded:
    """The bundle's own analysis: a mesh whose five marked places fit the pack's turned points."""

    def __init__(self) -> None:
        points = np.random.default_rng(5).uniform(80, 120, (478, 2)).astype(np.float32)
        places = _POINTS[list(backend._PLACES_106)] @ np.array([[0, 1], [-1, 0]], np.float32)
        points[list(backend._PLACES_478)] = 100 + 30 * places
        self.mesh = FaceLandmarks(
            points=points, yaw_degrees=0.0, pitch_degrees=0.0, roll_degrees=0.0,
            eye_openness=(0.3, 0.3), blendshapes=np.zeros(52, np.float32), score=0.9,
        )  # fmt: skip

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        raise AssertionError("insightface detects")

    def landmarks(
        self, picture: NDArray[np.uint8], box: FaceBox, *, previous: FaceLandmarks | None = None
    ) -> FaceLandmarks:
        return self.mesh

    def embed(self, crops: Tensor) -> Tensor:
        raise AssertionError("insightface embeds")


def save(
    path: Path, nodes: list[Any], inputs: Any, outputs: list[Any], constants: dict[str, Any]
) -> None:
    """Write an ONNX file."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, path.stem, [inputs], outputs, tensors)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def value(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def write_detector(path: Path) -> None:
    """Nine outputs: at strides 8, 16 and 32 scores, box distances and five points, two anchors.

    A cell of stride 8 scores 1 where red is much brighter than blue, else 0; its box reaches two
    cells to each side. The other strides find nothing.
    """
    nodes: list[Any] = []
    constants: dict[str, Any] = {"rows": np.array([-1, 1]), "fours": np.array([-1, 4]),
                                 "tens": np.array([-1, 10])}  # fmt: skip
    names: dict[str, list[str]] = {"scores": [], "boxes": [], "points": []}
    for stride in (8, 16, 32):
        weight = np.zeros((32, 3, stride, stride), np.float32)
        bias = np.full(32, 2.0, np.float32)
        if stride == 8:
            weight[0, 0], weight[0, 2] = 10 / 64, -10 / 64  # red first: the package swaps
        bias[:2] = -5.0
        constants |= {f"w{stride}": weight, f"b{stride}": bias}
        nodes.append(helper.make_node(
            "Conv", ["input.1", f"w{stride}", f"b{stride}"], [f"c{stride}"],
            kernel_shape=[stride] * 2, strides=[stride] * 2,
        ))  # fmt: skip
        nodes.append(
            helper.make_node("Transpose", [f"c{stride}"], [f"t{stride}"], perm=[0, 2, 3, 1])
        )
        parts = (("scores", 0, 2, "rows"), ("boxes", 2, 10, "fours"), ("points", 10, 30, "tens"))
        for kind, first, end, shape in parts:
            constants |= {f"s{first}": np.array([first]), f"s{end}": np.array([end])}
            constants |= {"axis": np.array([3])}
            cut, name = f"{kind}{stride}cut", f"{kind}{stride}"
            nodes.append(
                helper.make_node("Slice", [f"t{stride}", f"s{first}", f"s{end}", "axis"], [cut])
            )
            raw = name + "raw" if kind == "scores" else name
            nodes.append(helper.make_node("Reshape", [cut, shape], [raw]))
            if kind == "scores":
                nodes.append(helper.make_node("Sigmoid", [raw], [name]))
            names[kind].append(name)
    widths = {"scores": 1, "boxes": 4, "points": 10}
    outputs = [value(n, ["k" + n, widths[kind]]) for kind in names for n in names[kind]]
    save(path, nodes, value("input.1", [1, 3, "?", "?"]), outputs, constants)


def write_landmarks(path: Path) -> None:
    """Always the same 106 points."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["fc1"]),
    ]
    constants = {"w": np.zeros((3, 212), np.float32), "b": _POINTS.ravel()}
    save(path, nodes, value("data", ["None", 3, 192, 192]), [value("fc1", [1, 212])], constants)


def write_identity(path: Path) -> None:
    """Means of 16 px blocks, mixed."""
    nodes = [
        helper.make_node(
            "AveragePool", ["input.1"], ["pool"], kernel_shape=[16, 16], strides=[16, 16]
        ),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["683"]),
    ]
    shape = ["None", 3, 112, 112]
    save(path, nodes, value("input.1", shape), [value("683", [1, 512])], {"w": _MIXING})


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """insightface's home with a model pack, in which a file that we do not need is broken."""
    root = tmp_path_factory.mktemp("home")
    folder = backend.pack_folder(root)
    folder.mkdir(parents=True)
    write_detector(folder / backend.DETECTOR_FILE)
    write_landmarks(folder / backend.LANDMARKS_FILE)
    write_identity(folder / backend.IDENTITY_FILE)
    (folder / "1k3d68.onnx").write_bytes(b"not needed")
    return root


@pytest.fixture
def analysis(pack: Path) -> InsightFaceFinder:
    chosen = choose_finder(Embedded(), root=pack)
    assert isinstance(chosen, InsightFaceFinder)
    return chosen


def test_a_face_is_found_where_it_is_whatever_the_pictures_shape(
    analysis: InsightFaceFinder,
) -> None:
    """A red square is a face to the toy detector, a blue one is not."""
    picture = np.zeros((300, 960, 3), np.uint8)  # scaled by 640 / 960 on its way in
    picture[120:132, 480:492, 0] = 255  # red: one cell of 8 px after scaling
    picture[240:252, 240:252, 2] = 255
    boxes = analysis.detect(picture)
    assert len(boxes) == 1
    box = boxes[0]
    sides = (box.left, box.top, box.right, box.bottom)
    assert sides == pytest.approx((456, 96, 504, 144), abs=PLACEMENT_PIXELS)  # two cells around
    assert box.score > 0.99


def test_no_face_is_an_empty_list(analysis: InsightFaceFinder) -> None:
    assert analysis.detect(np.zeros((256, 256, 3), np.uint8)) == []


def test_the_mesh_goes_where_the_packs_points_are(analysis: InsightFaceFinder) -> None:
    box = FaceBox(left=80, top=80, right=120, bottom=120, score=1)
    found = analysis.landmarks(np.zeros((256, 256, 3), np.uint8), box).points
    mesh = Embedded().mesh.points
    low, high = mesh.min(0), mesh.max(0)
    side = 1.5 * float((high - low).max())  # the package looks at 1.5 times the box
    wanted = (low + high) / 2 + _POINTS[list(backend._PLACES_106)] * side / 2
    np.testing.assert_allclose(found[list(backend._PLACES_478)], wanted, atol=PLACEMENT_PIXELS)


def test_identity_vectors_are_the_networks_own_of_red_first_faces(
    analysis: InsightFaceFinder,
) -> None:
    crops = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    faces = (backend.template_faces(crops) * 127.5).round() / 127.5  # what 8 bits leave
    wanted = F.normalize(F.avg_pool2d(faces, 16).flatten(1) @ torch.from_numpy(_MIXING), dim=1)
    found = analysis.embed(crops)
    assert found.shape == (3, 512)
    assert float((found * wanted).sum(1).min()) > SAME_NETWORK_COSINE


@pytest.mark.parametrize("file", [backend.DETECTOR_FILE, backend.LANDMARKS_FILE])
def test_a_damaged_file_is_one_line_with_its_name(tmp_path: Path, pack: Path, file: str) -> None:
    folder = backend.pack_folder(tmp_path)
    folder.mkdir(parents=True)
    for source in backend.pack_folder(pack).iterdir():
        content = source.read_bytes()
        (folder / source.name).write_bytes(
            content[: len(content) // 2 if source.name == file else None]
        )
    with pytest.raises(BundleError, match=rf"damaged-weights: \S*{file}") as caught:
        choose_finder(Embedded(), root=tmp_path)
    assert "\n" not in str(caught.value)


def test_another_network_under_a_packs_name_is_refused(tmp_path: Path) -> None:
    folder = backend.pack_folder(tmp_path)
    folder.mkdir(parents=True)
    write_detector(folder / backend.DETECTOR_FILE)
    write_landmarks(folder / backend.IDENTITY_FILE)
    with pytest.raises(BundleError, match="expected a network for recognition, found landmark"):
        choose_finder(Embedded(), root=tmp_path)
