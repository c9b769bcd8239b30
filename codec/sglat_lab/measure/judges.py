"""The measuring networks: public ones, of which two also serve as losses in training."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bundles.bundle import bundles_folder
from sglat.errors import SglatError, UsageError
from sglat.networks.perceptual import weighted_feature_distance
from sglat.networks.pixels import from_pixels

SQUEEZE_FILE: Final = "squeezenet1_1_features.npz"
SQUEEZE_SOURCE: Final = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
"""The file that it was made from, as its publisher has it; either will do."""
TEACHERS_BUNDLE: Final = "teachers"
IDENTITY_FILE: Final = "mobilefacenet_id.onnx"
LANDMARKER_FILE: Final = "face_landmarker_v2_with_blendshapes.task"
BATCH: Final = 16

Features = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Perceptual:
    """One perceptual distance under its own name."""

    name: str
    features: Features
    heads: tuple[Tensor, ...]
    """Channel weights `[C]` of each level."""


@dataclass(frozen=True, kw_only=True)
class Judges:
    """The measuring networks that are at hand, and what is missing for the others."""

    perceptual: Perceptual | None = None
    lpips_alex: Perceptual | None = None
    identity: Callable[[Tensor], Tensor] | None = None
    """Unit vectors `[N, 128]` of crops in [-1, 1], MobileFaceNet."""
    landmarker: Path | None = None
    """MediaPipe task file."""
    missing: dict[str, str] = field(default_factory=dict)
    """Metric to what it needs."""


NOT_AT_HAND: Final = {
    "L_ID (ArcFace)": "ArcFace (sgl-bundles fetch ffhq); MobileFaceNet stands in",
    "FID": "Inception-v3 of the original implementation (sgl-bundles fetch metrics)",
    "FVD": "I3D of Kinetics-400 (sgl-bundles fetch metrics), and fragments of 120 frames",
    "FVD_M": "the same I3D, on the mouth region",
    "ρ_AU": "OpenFace 2.0 action units (--openface); blendshapes stand in as ρ_AU proxy",
    "ρ_GZ": "OpenFace 2.0 gaze angles (--openface); iris positions stand in as ρ_GZ proxy",
    "ρ_pose": "OpenFace 2.0 head pose (--openface); the landmark network's head matrix stands in",
    "DISTS": "VGG-16 ImageNet weights and the published α, β of DISTS; MS-SSIM is shown",
}


def find_teachers(folder: Path | None) -> Path | None:
    """Return the folder of measuring networks: the one given, else `$SGLAT_SHARED/teachers`, else
    what `sgl-bundles fetch teachers` made."""
    if folder is not None:
        return folder
    shared = Path(os.environ.get("SGLAT_SHARED", "../shared")) / "teachers"
    fetched = bundles_folder() / TEACHERS_BUNDLE
    return next((found for found in (shared, fetched) if found.is_dir()), None)


def load_judges(folder: Path | None, *, heads: Path | None = None) -> Judges:
    """Load what is at hand; what is not is named, never replaced.

    Args:
        folder: with SqueezeNet, MobileFaceNet and MediaPipe files; None: no networks.
        heads: LPIPS v0.1 heads for SqueezeNet (`squeeze.pth` of the `lpips` package); None looks
            into an installed `lpips`.
    """
    missing = dict(NOT_AT_HAND)
    perceptual = identity = landmarker = None
    squeeze = _present(folder, SQUEEZE_FILE) or _present(folder, SQUEEZE_SOURCE)
    if squeeze is None:
        missing["LPIPS-like"] = (
            f"{SQUEEZE_FILE} in the teachers folder (sgl-bundles fetch teachers)"
        )
    else:
        perceptual = _squeeze(squeeze, heads or installed_heads())
    identity_file = _present(folder, IDENTITY_FILE)
    if identity_file is None:
        missing["L_ID"] = f"{IDENTITY_FILE} in the teachers folder (sgl-bundles fetch teachers)"
    elif importlib.util.find_spec("onnx") is None:
        missing["L_ID"] = "the Python package onnx"
    else:
        from sglat_lab.measure.teachers import MobileFaceIdentity

        identity = MobileFaceIdentity(identity_file).eval().requires_grad_(False)
    landmarker = _present(folder, LANDMARKER_FILE)
    if landmarker is None:
        missing["signals"] = (
            f"{LANDMARKER_FILE} in the teachers folder (sgl-bundles fetch teachers)"
        )
    elif importlib.util.find_spec("mediapipe") is None:
        landmarker = None
        missing["signals"] = "the Python package mediapipe (pip install sglat[simulate])"
    alex = _alex(missing)
    return Judges(
        perceptual=perceptual,
        lpips_alex=alex,
        identity=identity,
        landmarker=landmarker,
        missing=missing,
    )


def installed_heads() -> Path | None:
    """Return the SqueezeNet heads of an installed `lpips` package, without importing it."""
    found = importlib.util.find_spec("lpips")
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).parent / "weights" / "v0.1" / "squeeze.pth"
    return file if file.exists() else None


def _present(folder: Path | None, name: str) -> Path | None:
    return folder / name if folder is not None and (folder / name).is_file() else None


def _squeeze(file: Path, heads_file: Path | None) -> Perceptual:
    from sglat_lab.measure.teachers import SqueezePerceptual

    network = SqueezePerceptual(file, heads_file).eval().requires_grad_(False)
    if network.heads is not None:
        heads = tuple(head.flatten() for head in network.heads)
        name = "LPIPS-like (SqueezeNet teacher, LPIPS v0.1 heads)"
    else:
        heads = tuple(torch.ones(c) for c in (64, 128, 256, 384, 384, 512, 512))
        name = "SqueezeNet distance (no heads: another scale than LPIPS)"
    return Perceptual(name=name, features=network.features, heads=heads)


def _alex(missing: dict[str, str]) -> Perceptual | None:
    from sglat.networks.perceptual import Lpips

    try:
        network = Lpips()
    except SglatError as error:
        missing["LPIPS"] = (
            "AlexNet ImageNet weights (torchvision's alexnet-owt-7be5be79) for the published heads "
            f"({error.code}); the SqueezeNet distance stands in under its own name"
        )
        return None
    heads = tuple(network.heads())
    return Perceptual(name="LPIPS v0.1 (AlexNet)", features=network.features, heads=heads)


@torch.inference_mode()
def perceptual_distances(
    network: Perceptual,
    shown: NDArray[np.uint8],
    wanted: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return one distance a frame, `[N]`; 0 for equal pictures.

    With masks the feature differences are averaged over the mask, brought down to each level.

    Args:
        network: features and heads.
        shown: `[N, H, W, 3]`.
        wanted: `[N, H, W, 3]`.
        masks: `[N, H, W]`.
    """
    whole, inside = distances_to(network, shown, features_of(network, wanted), masks)
    return whole if inside is None else inside


@torch.inference_mode()
def features_of(network: Perceptual, pictures: NDArray[np.uint8]) -> list[list[Tensor]]:
    """Return the feature maps of pictures `[N, H, W, 3]`, batch by batch, to compare with often."""
    return [
        network.features(from_pixels(pictures[at : at + BATCH]))
        for at in range(0, len(pictures), BATCH)
    ]


@torch.inference_mode()
def distances_to(
    network: Perceptual,
    shown: NDArray[np.uint8],
    wanted: list[list[Tensor]],
    masks: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the distances of whole pictures and inside the masks, `[N]` each, in one pass.

    Args:
        network: features and heads.
        shown: `[N, H, W, 3]`.
        wanted: of `features_of`.
        masks: `[N, H, W]`; None: no second figure.
    """
    whole: list[Tensor] = []
    inside: list[Tensor] = []
    for at, features in zip(range(0, len(shown), BATCH), wanted, strict=True):
        span = slice(at, at + BATCH)
        found = network.features(from_pixels(shown[span]))
        whole.append(weighted_feature_distance(found, features, network.heads, None))
        if masks is not None:
            mask = torch.from_numpy(masks[span]).float()[:, None]
            inside.append(weighted_feature_distance(found, features, network.heads, mask))

    def numbers(parts: list[Tensor]) -> NDArray[np.float64]:
        return np.asarray(torch.cat(parts).double().numpy())

    return numbers(whole), numbers(inside) if inside else None


@torch.inference_mode()
def embeddings(
    network: Callable[[Tensor], Tensor], pictures: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return one unit vector a frame, `[N, D]`, of aligned crops `[N, H, W, 3]`."""
    parts = [
        network(from_pixels(pictures[at : at + BATCH])) for at in range(0, len(pictures), BATCH)
    ]
    return np.asarray(torch.cat(parts).numpy())


def identity_losses(shown: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return L_ID = 1 - cosine of unit vectors `[N, D]`, one a frame; 0 for one vector twice."""
    products = np.sum(shown.astype(np.float64) * wanted, axis=-1)
    return np.asarray(1.0 - products)


@torch.inference_mode()
def pooled_features(network: Perceptual, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the last feature map averaged over positions, `[N, C]`."""
    parts: Sequence[Tensor] = [
        network.features(from_pixels(pictures[at : at + BATCH]))[-1].mean((2, 3))
        for at in range(0, len(pictures), BATCH)
    ]
    return np.asarray(torch.cat(list(parts)).numpy())


def frechet_distance(shown: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Return the squared Fréchet distance of two Gaussians fitted to features; 0 for equal sets.

    Args:
        shown: `[N, D]`, more samples than dimensions.
        wanted: `[M, D]`, the same.

    Raises:
        UsageError: too few samples for a covariance of full rank.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.
    """
    a, b = np.asarray(shown, np.float64), np.asarray(wanted, np.float64)
    dimensions = a.shape[1]
    if min(len(a), len(b)) <= dimensions:
        raise UsageError(
            "few-samples", f"expected more than {dimensions} frames, found {min(len(a), len(b))}"
        )
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # trace of (C1 C2)^1/2 = sum of the roots of the eigenvalues of C1 C2: real and not negative
    cross = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None)).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(max(0.0, gap + np.trace(first) + np.trace(second) - 2 * cross))
