"""insightface is chosen exactly when its package and model pack are present."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.errors import BundleError, MissingExtraError, UsageError
from sglat.networks import face_analysis as backend
from sglat.networks.face_analysis import InsightFaceFinder, choose_finder
from sglat.networks.faces import FaceBox, FaceLandmarks
from tests.support.tolerances import PLACEMENT_PIXELS

PICTURE = np.zeros((40, 60, 3), np.uint8)
MESH = FaceLandmarks(
    points=np.random.default_rng(0).uniform(5, 30, (478, 2)).astype(np.float32),
    yaw_degrees=1.0,
    pitch_degrees=2.0,
    roll_degrees=3.0,
    eye_openness=(0.3, 0.3),
    blendshapes=np.zeros(52, np.float32),
    score=0.9,
)
TURNED = MESH.points @ np.array([[0.0, 2.0], [-2.0, 0.0]], np.float32) + np.float32([3, -4])


class Embedded:
    """The bundle's own analysis, reduced to what the back-end passes on."""

    def __init__(self) -> None:
        self.boxes: list[FaceBox] = []

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        raise AssertionError("insightface detects")

    def landmarks(
        self, picture: NDArray[np.uint8], box: FaceBox, *, previous: FaceLandmarks | None = None
    ) -> FaceLandmarks:
        self.boxes.append(box)
        return MESH

    def embed(self, crops: Tensor) -> Tensor:
        raise AssertionError("insightface embeds")


class FakeZoo(ModuleType):
    """Stands in for `insightface.model_zoo`; the real one is in test_insightface_package.py."""

    def __init__(self) -> None:
        super().__init__("insightface.model_zoo")
        self.seen: list[NDArray[np.uint8]] = []
        self.opened: list[str] = []
        self.prepared: dict[str, Any] = {}
        self.providers: list[Any] = ["CPUExecutionProvider"]

    def get_model(self, name: str, *, providers: list[Any]) -> SimpleNamespace:
        self.opened.append(name)
        assert providers == self.providers
        models = {
            backend.DETECTOR_FILE: SimpleNamespace(
                taskname="detection", detect=self.find, prepare=self.prepare
            ),
            backend.IDENTITY_FILE: SimpleNamespace(taskname="recognition", get_feat=self.features),
            backend.LANDMARKS_FILE: SimpleNamespace(taskname="landmark_2d_106", get=self.points),
        }
        return models[Path(name).name]

    def prepare(self, device: int, **options: Any) -> None:
        self.prepared = {"device": device, **options}

    def find(self, picture: NDArray[np.uint8], **options: Any) -> tuple[Any, Any]:
        self.seen.append(picture)
        return np.array([[1, 2, 5, 8, 0.9], [0, 0, 30, 20, 0.8]], np.float32), None

    def points(self, picture: NDArray[np.uint8], face: Any) -> NDArray[np.float32]:
        """The mesh turned by a quarter, doubled and moved, at the five places that count."""
        assert list(face.bbox) == [*MESH.points.min(0), *MESH.points.max(0)]
        points = np.zeros((106, 2), np.float32)
        points[list(backend._PLACES_106)] = TURNED[list(backend._PLACES_478)]
        return points

    def features(self, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.seen += pictures
        return np.array([[3.0, 4.0]] * len(pictures), np.float32)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> FakeZoo:
    """Install a fake insightface."""
    package, zoo = ModuleType("insightface"), FakeZoo()
    package.__spec__ = ModuleSpec("insightface", None)
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", zoo)
    return zoo


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Make a home folder with a model pack."""
    folder = tmp_path / "models" / backend.PACK
    folder.mkdir(parents=True)
    for name in (backend.DETECTOR_FILE, backend.IDENTITY_FILE, backend.LANDMARKS_FILE):
        (folder / name).touch()
    return tmp_path


def test_auto_takes_insightface_where_the_pack_is_present(zoo: FakeZoo, pack: Path) -> None:
    chosen = choose_finder(Embedded(), root=pack)
    assert isinstance(chosen, InsightFaceFinder)
    assert {Path(name).parent for name in zoo.opened} == {pack / "models" / backend.PACK}
    assert zoo.prepared == {"device": -1, "input_size": (640, 640), "det_thresh": 0.5}


def test_a_gpu_is_used_where_onnx_runtime_has_it(
    zoo: FakeZoo, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = ModuleType("onnxruntime")
    runtime.get_available_providers = lambda: ["CUDAExecutionProvider"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    zoo.providers = [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]
    choose_finder(Embedded(), root=pack, device=torch.device("cuda:1"))
    assert zoo.prepared["device"] == 1


def test_a_gpu_that_onnx_runtime_cannot_use_is_told(
    zoo: FakeZoo, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = ModuleType("onnxruntime")
    runtime.get_available_providers = lambda: ["CPUExecutionProvider"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    with pytest.warns(UserWarning, match="runs on the processor: .* install onnxruntime-gpu"):
        choose_finder(Embedded(), root=pack, device=torch.device("cuda"))
    assert zoo.prepared["device"] == -1


def test_auto_takes_the_embedded_analysis_without_the_pack(zoo: FakeZoo, tmp_path: Path) -> None:
    embedded = Embedded()
    assert choose_finder(embedded, root=tmp_path) is embedded


def test_auto_takes_the_embedded_analysis_with_half_a_pack(zoo: FakeZoo, pack: Path) -> None:
    (pack / "models" / backend.PACK / backend.IDENTITY_FILE).unlink()
    embedded = Embedded()
    assert choose_finder(embedded, root=pack) is embedded


def test_auto_takes_the_embedded_analysis_without_the_package(
    monkeypatch: pytest.MonkeyPatch, pack: Path
) -> None:
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    embedded = Embedded()
    assert choose_finder(embedded, root=pack) is embedded


def test_home_folder_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSIGHTFACE_HOME", str(tmp_path))
    assert backend.pack_folder() == tmp_path / "models" / "buffalo_l"


def test_asking_for_an_absent_package_explains_itself(
    monkeypatch: pytest.MonkeyPatch, pack: Path
) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.delitem(sys.modules, "insightface.model_zoo", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install sglat\[insightface\]"):
        InsightFaceFinder(Embedded(), root=pack)


def test_asking_for_an_absent_pack_names_the_file(zoo: FakeZoo, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"missing-weights: expected det_10g\.onnx in"):
        InsightFaceFinder(Embedded(), root=tmp_path)


def test_detection_sorts_by_area_and_speaks_blue_first(zoo: FakeZoo, pack: Path) -> None:
    analysis = InsightFaceFinder(Embedded(), root=pack)
    picture = PICTURE.copy()
    picture[..., 0] = 200
    boxes = analysis.detect(picture)
    assert [box.right for box in boxes] == [30.0, 5.0]
    assert zoo.seen[0][0, 0].tolist() == [0, 0, 200]


def test_the_mesh_is_moved_onto_insightfaces_points(zoo: FakeZoo, pack: Path) -> None:
    base = Embedded()
    analysis = InsightFaceFinder(base, root=pack)
    box = analysis.detect(PICTURE)[0]
    found = analysis.landmarks(PICTURE, box)
    np.testing.assert_allclose(found.points, TURNED, atol=PLACEMENT_PIXELS)
    assert base.boxes == [box]


def test_without_its_landmark_network_the_mesh_stays(zoo: FakeZoo, pack: Path) -> None:
    (pack / "models" / backend.PACK / backend.LANDMARKS_FILE).unlink()
    analysis = InsightFaceFinder(Embedded(), root=pack)
    assert analysis.landmarks(PICTURE, analysis.detect(PICTURE)[0]) is MESH


def test_embedding_is_a_unit_vector_of_the_template_face(zoo: FakeZoo, pack: Path) -> None:
    vectors = InsightFaceFinder(Embedded(), root=pack).embed(torch.zeros(2, 3, 128, 128))
    torch.testing.assert_close(vectors, torch.tensor([[0.6, 0.8]] * 2))
    assert [picture.shape for picture in zoo.seen] == [(112, 112, 3)] * 2


def test_embedding_refuses_to_pretend_a_gradient(zoo: FakeZoo, pack: Path) -> None:
    analysis = InsightFaceFinder(Embedded(), root=pack)
    with pytest.raises(UsageError, match="no-gradient"):
        analysis.embed(torch.zeros(1, 3, 128, 128, requires_grad=True))


@pytest.mark.parametrize("size", [128, 256, 1024])
def test_eyes_and_mouth_of_an_aligned_crop_land_on_the_template(size: int) -> None:
    """A spot at each of the crop's standard points is found at its template point."""
    ends = zip(backend._CROP, backend._TEMPLATE, strict=True)
    for (x, y), (template_x, template_y) in ends:
        steps = (torch.arange(size) + 0.5) / size
        spot = torch.exp(-((steps[None] - x) ** 2 + (steps[:, None] - y) ** 2) / (2 * 0.02**2))
        face = backend.template_faces(spot.expand(1, 3, size, size))[0, 0]
        weights = face / face.sum()
        columns = float((weights.sum(dim=0) * torch.arange(112)).sum())
        rows = float((weights.sum(dim=1) * torch.arange(112)).sum())
        assert abs(columns - template_x) < 3 and abs(rows - template_y) < 3  # pixels of 112
