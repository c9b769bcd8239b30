"""insightface behind the face-analysis interface: detector, landmarks and identity.

The model pack has 106 landmarks, the codec needs 478 and blendshapes. The bundle's own network
provides the mesh, aligned to insightface's points by a similarity. Blendshapes, face parsing and
the identity vectors of losses stay with the bundle: ONNX Runtime gives no gradients. The pack is
never downloaded from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sglat.errors import BundleError, MissingExtraError, UsageError
from sglat.networks.face_points import IRISES, MOUTH_CORNERS, NOSE_TIP
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceLandmarks
from sglat.networks.pixels import to_pixels

PACK: Final = "buffalo_l"
DETECTOR_FILE: Final = "det_10g.onnx"
IDENTITY_FILE: Final = "w600k_r50.onnx"
LANDMARKS_FILE: Final = "2d106det.onnx"
Choice = Literal["auto", "embedded", "insightface"]

_DETECTOR_SIZE: Final = (640, 640)  # pixels; the pack's own default
_DETECTOR_SCORE: Final = 0.5  # the package's default
_ON_CPU: Final = -1  # the package's number of the processor; GPUs count from 0
_TEMPLATE_SIZE: Final = 112
# The same places among 106 points and in the 478-point mesh: the pupils (the picture's left first),
# the tip of the nose, the corners of the mouth.
_PLACES_106: Final = (38, 88, 86, 52, 61)
_PLACES_478: Final = (*IRISES, NOSE_TIP, *MOUTH_CORNERS)
# Eyes and mouth corners in the identity network's 112 px template, x and y (published with it)
_TEMPLATE: Final = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
# The same points in an FFHQ crop of side 1. The crop's rule puts the eye line 0.1 of the distance
# v between eyes and mouth above the middle; with a side of 4 eye distances u and 2 u = 1.8 v, the
# eyes lie 0.25 apart and the mouth 0.278 below them. Mouth corners: 0.18 apart.
_CROP: Final = ((0.375, 0.472), (0.625, 0.472), (0.41, 0.75), (0.59, 0.75))


def pack_folder(root: Path | None = None) -> Path:
    """Return where insightface keeps the model pack.

    Args:
        root: insightface's home; `INSIGHTFACE_HOME`, else `~/.insightface`.
    """
    home = root or Path(os.environ.get("INSIGHTFACE_HOME", "~/.insightface")).expanduser()
    return home / "models" / PACK


def is_available(root: Path | None = None) -> bool:
    """Tell whether the package is installed and its model pack is present."""
    folder = pack_folder(root)
    has_pack = all((folder / name).is_file() for name in (DETECTOR_FILE, IDENTITY_FILE))
    return has_pack and importlib.util.find_spec("insightface") is not None


def choose_face_analysis(
    embedded: FaceAnalysis, *, choice: Choice = "auto", root: Path | None = None
) -> FaceAnalysis:
    """Return insightface's analysis if requested and installed, else the embedded one.

    Args:
        embedded: the bundle's own networks.
        choice: `auto` takes insightface exactly when its model pack is present.
        root: insightface's home folder; found by itself if None.

    Raises:
        MissingExtraError: insightface was requested but is not installed.
        BundleError: it was requested but its model pack is absent.
    """
    if choice == "embedded" or (choice == "auto" and not is_available(root)):
        return embedded
    return InsightFaceAnalysis(embedded, root=root)


class InsightFaceAnalysis:
    """insightface behind the interface of `FaceAnalysis`."""

    def __init__(self, base: FaceAnalysis, *, root: Path | None = None) -> None:
        """Load the pack's detector, identity and landmark network, and no other of its files.

        Args:
            base: gives the mesh, blendshapes and parsing.
            root: insightface's home folder; found by itself if None.

        Raises:
            MissingExtraError: the package is not installed.
            BundleError: a file of the model pack is absent, damaged or another network.
        """
        self.base = base
        folder = pack_folder(root)
        try:
            zoo = importlib.import_module("insightface.model_zoo")
        except ImportError as error:
            raise MissingExtraError("insightface", extra="insightface") from error
        self._detector = _load(zoo, folder / DETECTOR_FILE, task="detection")
        self._detector.prepare(_ON_CPU, input_size=_DETECTOR_SIZE, det_thresh=_DETECTOR_SCORE)
        self._identity = _load(zoo, folder / IDENTITY_FILE, task="recognition")
        self._points = None  # packs without this model exist
        if (folder / LANDMARKS_FILE).is_file():
            self._points = _load(zoo, folder / LANDMARKS_FILE, task="landmark_2d_106")

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        """Return all faces of a picture `[H, W, 3]`, largest first."""
        rows, _ = self._detector.detect(_blue_first(picture), max_num=0, metric="default")
        boxes = [
            FaceBox(left=left, top=top, right=right, bottom=bottom, score=score)
            for left, top, right, bottom, score in np.asarray(rows, dtype=float).tolist()
        ]
        return sorted(boxes, key=lambda box: (box.left - box.right) * (box.bottom - box.top))

    def landmarks(
        self, picture: NDArray[np.uint8], box: FaceBox, *, previous: FaceLandmarks | None = None
    ) -> FaceLandmarks:
        """Return the base networks' landmarks of the face in a box, moved onto insightface's.

        The mesh is rotated, scaled and shifted as a whole, by least squares from its pupils, nose
        and mouth corners to insightface's. Without the pack's landmark network the base networks'
        landmarks stay as they are.
        """
        found = self.base.landmarks(picture, box, previous=previous)
        if self._points is None:
            return found
        face = _Face(bbox=np.concatenate([found.points.min(0), found.points.max(0)]))
        seen = np.asarray(self._points.get(_blue_first(picture), face), np.float64)
        matrix, shift = similarity(found.points[list(_PLACES_478)], seen[list(_PLACES_106)])
        moved = found.points.astype(np.float64) @ matrix.T + shift
        return replace(found, points=moved.astype(np.float32))

    def parse(self, crops: Tensor) -> Tensor:
        """Return the base networks' class probabilities `[N, 19, H, W]`."""
        return self.base.parse(crops)

    def embed(self, crops: Tensor) -> Tensor:
        """Return unit identity vectors `[N, 512]` of FFHQ-aligned crops `[N, 3, H, W]`.

        Raises:
            UsageError: a gradient is required; this network runs outside torch.
        """
        if crops.requires_grad:
            raise UsageError(
                "no-gradient", "insightface's identity network has no gradient: embed_for_loss has"
            )
        faces = template_faces(crops.detach().float().cpu())
        pictures = [_blue_first(face) for face in to_pixels(faces)]
        # one by one: graphs that state a batch of 1 warn of more
        rows = [self._identity.get_feat([picture]) for picture in pictures]
        features = torch.from_numpy(np.concatenate(rows).astype(np.float32))
        return F.normalize(features, dim=1).to(crops.device)

    def embed_for_loss(self, crops: Tensor) -> Tensor:
        """Return the base network's identity vectors `[N, D]`; differentiable."""
        return self.base.embed_for_loss(crops)


def _load(zoo: Any, path: Path, *, task: str) -> Any:
    """Return one network of the pack; raises BundleError."""
    if not path.is_file():
        raise BundleError(
            "missing-weights", f"expected {path.name} in {path.parent}, found nothing"
        )
    try:
        model = zoo.get_model(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class of its own for each kind of damage
        reason = " ".join(str(error).split())[:200]
        raise BundleError("damaged-weights", f"{path}: expected ONNX, found {reason}") from error
    found = getattr(model, "taskname", "none that insightface knows")
    if found != task:
        raise BundleError("bad-weights", f"{path}: expected a network for {task}, found {found}")
    return model


class _Face(dict[str, Any]):
    """What insightface's landmark network reads the box from and writes its points to."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def similarity(
    source: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the turn, scale and shift that bring points nearest to others.

    Args:
        source: `[N, 2]`.
        target: `[N, 2]`.

    Returns:
        Matrix `[2, 2]` and shift `[2]`: target ≈ source · matrixᵀ + shift in the least-squares
        sense.
    """
    from_middle, to_middle = source.mean(0), target.mean(0)
    a, b = (np.asarray(source) - from_middle).T
    c, d = (np.asarray(target) - to_middle).T
    energy = max(float((a * a + b * b).sum()), 1e-12)
    cosine, sine = float((a * c + b * d).sum()) / energy, float((a * d - b * c).sum()) / energy
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    return matrix, to_middle - matrix @ from_middle


def template_faces(crops: Tensor) -> Tensor:
    """Bring FFHQ-aligned crops `[N, 3, H, W]` to the 112 px template of insightface's networks."""
    a, b, x, y = _similarity()
    size = _TEMPLATE_SIZE
    steps = torch.arange(size, dtype=crops.dtype, device=crops.device)
    columns, rows = steps[None, :], steps[:, None]
    grid = torch.stack(  # crop coordinates of each template pixel, from 0..1 to -1..1
        [a * columns - b * rows + x, b * columns + a * rows + y], dim=-1
    )
    coarse = crops.shape[-1] // (2 * size)
    if coarse > 1:  # bilinear sampling alone would skip pixels
        crops = F.avg_pool2d(crops, coarse)
    grid = (grid * 2 - 1).expand(len(crops), -1, -1, -1)
    return F.grid_sample(crops, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _similarity() -> tuple[float, float, float, float]:
    """Return a, b, x, y of the least-squares map from template pixels to the crop of side 1."""
    template, crop = np.array(_TEMPLATE), np.array(_CROP)
    ones, zeros = np.ones(len(crop)), np.zeros(len(crop))
    system = np.concatenate(
        [
            np.stack([template[:, 0], -template[:, 1], ones, zeros], axis=1),
            np.stack([template[:, 1], template[:, 0], zeros, ones], axis=1),
        ]
    )
    solution = np.linalg.lstsq(system, np.concatenate([crop[:, 0], crop[:, 1]]), rcond=None)[0]
    a, b, x, y = solution.tolist()
    return a, b, x, y


def _blue_first(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[:, :, ::-1])
