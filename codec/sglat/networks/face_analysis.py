"""The face analysis of a bundle: its own networks, the embedded ones where it has none, and
insightface's detector, landmarks and identity where they are installed.

insightface's model pack has 106 landmarks, the codec needs 478 and blendshapes. The bundle's own
network provides the mesh, aligned to these points by a similarity. Blendshapes, face parsing and
the identity vectors of losses stay with the bundle: ONNX Runtime gives no gradients. The pack is
never downloaded from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.errors import BundleError, MissingExtraError, UsageError
from sglat.networks.embedded_analysis import KINDS, EmbeddedAnalysis
from sglat.networks.face_points import IRISES, MOUTH_CORNERS, NOSE_TIP
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceFinder, FaceLandmarks
from sglat.networks.pixels import to_pixels

PACK: Final = "buffalo_l"
DETECTOR_FILE: Final = "det_10g.onnx"
IDENTITY_FILE: Final = "w600k_r50.onnx"
LANDMARKS_FILE: Final = "2d106det.onnx"

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
    """Return where insightface keeps the model pack: below `root`, else `INSIGHTFACE_HOME`, else
    `~/.insightface`."""
    home = root or Path(os.environ.get("INSIGHTFACE_HOME", "~/.insightface")).expanduser()
    return home / "models" / PACK


def is_available(root: Path | None = None) -> bool:
    """Tell whether the package is installed and its model pack is present."""
    folder = pack_folder(root)
    has_pack = all((folder / name).is_file() for name in (DETECTOR_FILE, IDENTITY_FILE))
    return has_pack and importlib.util.find_spec("insightface") is not None


def choose_finder(
    embedded: FaceFinder, *, root: Path | None = None, device: torch.device | None = None
) -> FaceFinder:
    """Return insightface where its package and model pack are present, else the embedded networks;
    arguments as for `InsightFaceFinder`."""
    if not is_available(root):
        return embedded
    return InsightFaceFinder(embedded, root=root, device=device)


class InsightFaceFinder:
    """insightface behind the interface of `FaceFinder`."""

    def __init__(
        self, base: FaceFinder, *, root: Path | None = None, device: torch.device | None = None
    ) -> None:
        """Load the pack's detector, identity and landmark network, and no other of its files.

        Args:
            base: gives the mesh and blendshapes.
            root: insightface's home folder; found by itself if None.
            device: a GPU needs the CUDA provider of ONNX Runtime (`onnxruntime-gpu`); without it
                these networks run on the processor, and a warning says so.

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
        number, providers = _providers(device or torch.device("cpu"))
        load = partial(_model, zoo, providers)
        self._detector = load(folder / DETECTOR_FILE, task="detection")
        self._detector.prepare(number, input_size=_DETECTOR_SIZE, det_thresh=_DETECTOR_SCORE)
        self._identity = load(folder / IDENTITY_FILE, task="recognition")
        self._points = None  # packs without this model exist
        if (folder / LANDMARKS_FILE).is_file():
            self._points = load(folder / LANDMARKS_FILE, task="landmark_2d_106")

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


def _providers(device: torch.device) -> tuple[int, list[Any]]:
    """Return the package's number of a device, and ONNX Runtime's providers for it."""
    on_processor = ["CPUExecutionProvider"]
    if device.type != "cuda":
        return _ON_CPU, on_processor
    number = device.index or 0
    runtime = importlib.import_module("onnxruntime")
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        warnings.warn(
            "insightface runs on the processor: onnxruntime has no CUDA provider; install "
            "onnxruntime-gpu in place of onnxruntime",
            stacklevel=2,
        )
        return _ON_CPU, on_processor
    return number, [("CUDAExecutionProvider", {"device_id": number}), *on_processor]


def _model(zoo: Any, providers: list[Any], path: Path, *, task: str) -> Any:
    """Return one network of the pack; raises BundleError."""
    if not path.is_file():
        raise BundleError(
            "missing-weights", f"expected {path.name} in {path.parent}, found nothing"
        )
    try:
        model = zoo.get_model(str(path), providers=providers)
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
    """Return matrix `[2, 2]` and shift `[2]` that bring points `[N, 2]` nearest to others by a
    turn, a scale and a shift: target ≈ source · matrixᵀ + shift in the least-squares sense."""
    from_middle, to_middle = source.mean(0), target.mean(0)
    a, b = (np.asarray(source) - from_middle).T
    c, d = (np.asarray(target) - to_middle).T
    energy = max(float((a * a + b * b).sum()), 1e-12)
    cosine, sine = float((a * c + b * d).sum()) / energy, float((a * d - b * c).sum()) / energy
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    return matrix, to_middle - matrix @ from_middle


def template_faces(crops: Tensor) -> Tensor:
    """Bring FFHQ-aligned crops `[N, 3, H, W]` to the 112 px template of insightface's networks."""
    matrix, (x, y) = similarity(np.array(_TEMPLATE), np.array(_CROP))
    a, b = matrix[:, 0].tolist()
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


def _blue_first(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(picture[:, :, ::-1])


OWN_ROLES: Final = ("parsing", "identity")  # for which a bundle may bring another kind of network


@dataclass(frozen=True, kw_only=True)
class MixedAnalysis:
    """Detection and landmarks of one analysis; parsing and identity of other networks."""

    finder: FaceFinder
    parse: Callable[[Tensor], Tensor]
    """See `FaceAnalysis`, also for the next two."""
    embed: Callable[[Tensor], Tensor]
    embed_for_loss: Callable[[Tensor], Tensor]

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        """See `FaceAnalysis`."""
        return self.finder.detect(picture)

    def landmarks(
        self, picture: NDArray[np.uint8], box: FaceBox, *, previous: FaceLandmarks | None = None
    ) -> FaceLandmarks:
        """See `FaceAnalysis`."""
        return self.finder.landmarks(picture, box, previous=previous)


def face_analysis(
    own: Mapping[str, nn.Module],
    embedded: Mapping[str, nn.Module],
    *,
    device: torch.device,
    pack_root: Path,
) -> FaceAnalysis:
    """Return the face analysis of a bundle.

    Where insightface and its model pack are present, they detect faces, align landmarks and compare
    identities; the mesh itself is the embedded network's. Parsing and the identity vectors of
    losses are the bundle's own or the embedded ones, since both need a gradient. So the network
    that evaluates identity is not the one that tuning minimises.

    Args:
        own: the bundle's face networks by role; of another kind than the embedded ones only in
            `OWN_ROLES`.
        embedded: the embedded bundle's, for the roles that are not in `own` or of another kind.
        device: where they run.
        pack_root: folder of a fetched insightface pack; may be missing.
    """
    same = {role: network for role, network in own.items() if isinstance(network, KINDS[role])}
    analysis = EmbeddedAnalysis(networks={**embedded, **same}, device=device)
    root = pack_root if is_available(pack_root) else None  # None: insightface's own home
    finder = choose_finder(analysis, root=root, device=torch.device(device))
    other = {role: network for role, network in own.items() if role not in same}
    if not other and finder is analysis:
        return analysis
    parser: Any = other.get("parsing", analysis)  # such as BiSeNet
    embedder: Any = other.get("identity", analysis)  # such as ArcFace
    return MixedAnalysis(
        finder=finder,
        parse=parser.parse,
        embed=embedder.embed if finder is analysis else finder.embed,
        embed_for_loss=embedder.embed,
    )
