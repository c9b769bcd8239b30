"""FID, FVD and FVD_M by the published protocols, and correlations from OpenFace's CSV files.

FID: 299 px, batches of 100. FVD: fragments of 120 frames at 224 px in batches of 8, the scores of
the batches averaged; FVD_M: the same with all but the mouth blacked out.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.bundles.bundle import Bundle, bundles_folder
from sglat.bundles.manifest import MANIFEST_NAME, fill_network
from sglat.errors import BundleError, UsageError
from sglat.files import check_input
from sglat.networks.pixels import from_pixels
from sglat.networks.published_nets import ArcFace
from sglat_lab.measure.video_nets import I3D, I3D_SIDE, InceptionV3

FID_BATCH: Final = 100
FRAGMENT_FRAMES: Final = 120
FRAGMENT_BATCH: Final = 8
METRICS_BUNDLE: Final = "metrics"
_ROLES: Final = {"inception": InceptionV3, "i3d": I3D}
# Columns of OpenFace 2.0's output; action unit 28 has no intensity.
_UNITS: Final = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
OPENFACE_COLUMNS: Final = {
    "ρ_AU": tuple(f"AU{unit:02d}_r" for unit in _UNITS),
    "ρ_GZ": ("gaze_angle_x", "gaze_angle_y"),
    "ρ_pose": ("pose_Rx", "pose_Ry"),
}
_CONSTANT: Final = 1e-9  # a series that moves less has no correlation

Pictures = NDArray[np.uint8]


def metrics_network(role: str) -> nn.Module:
    """Return `inception` or `i3d` of the fetched bundle `metrics`.

    Raises:
        BundleError: not fetched, or damaged; with the remedy.
    """
    folder = bundles_folder() / METRICS_BUNDLE
    if not (folder / MANIFEST_NAME).is_file() or not Bundle(folder).has(role):
        raise BundleError(
            "missing-weights",
            f"expected {role} in {folder}, found none; fetch it by: sgl-bundles fetch metrics",
        )
    tensors = Bundle(folder).tensors(role)
    return fill_network(_ROLES[role](), tensors, place=f"{role} of {METRICS_BUNDLE}")


@torch.inference_mode()
def inception_features(network: nn.Module, pictures: Pictures) -> NDArray[np.float64]:
    """Return the features of pictures `[N, H, W, 3]`, `[N, 2048]`."""
    batches = range(0, len(pictures), FID_BATCH)
    found = [network(from_pixels(pictures[at : at + FID_BATCH])) for at in batches]
    return np.asarray(torch.cat(found).double().numpy())


@torch.inference_mode()
def i3d_features(network: nn.Module, fragments: Pictures) -> NDArray[np.float64]:
    """Return the features of fragments `[N, T, H, W, 3]`, `[N, 400]`."""
    size = (I3D_SIDE, I3D_SIDE)
    rows = []
    for fragment in fragments:
        frames = F.interpolate(from_pixels(fragment), size, mode="bilinear", align_corners=False)
        rows.append(network(frames.transpose(0, 1)[None]))
    return np.asarray(torch.cat(rows).double().numpy())


def fid(network: nn.Module, shown: Pictures, wanted: Pictures) -> float:
    """Return FID of frames `[N, H, W, 3]`.

    Fewer frames than features leave the covariances without full rank, as with the published
    protocol on a single clip: only figures of as many frames compare.
    """
    return gaussian_distance(
        inception_features(network, shown), inception_features(network, wanted)
    )


def fragments_of(pictures: Pictures) -> Pictures:
    """Return consecutive fragments `[N, 120, H, W, 3]`; the rest is left out.

    Raises:
        UsageError: fewer frames than two fragments, which a covariance needs.
    """
    count = len(pictures) // FRAGMENT_FRAMES
    if count < 2:
        raise UsageError(
            "few-frames",
            f"FVD needs two fragments of {FRAGMENT_FRAMES} frames, found {len(pictures)} frames; "
            f"measure a clip of {2 * FRAGMENT_FRAMES} or more, or several clips together",
        )
    return pictures[: count * FRAGMENT_FRAMES].reshape(count, FRAGMENT_FRAMES, *pictures.shape[1:])


def fvd(network: nn.Module, shown: Pictures, wanted: Pictures) -> float:
    """Return FVD of fragments `[N, T, H, W, 3]`: the mean over batches of 8; a last batch of one
    fragment is left out."""
    a, b = i3d_features(network, shown), i3d_features(network, wanted)
    starts = [at for at in range(0, len(a), FRAGMENT_BATCH) if len(a) - at > 1]
    parts = [slice(at, at + FRAGMENT_BATCH) for at in starts]
    return float(np.mean([gaussian_distance(a[part], b[part]) for part in parts]))


def mouth_only(pictures: Pictures, masks: NDArray[np.bool_]) -> Pictures:
    """Return pictures `[..., H, W, 3]` that are black outside masks `[..., H, W]`, for FVD_M."""
    return pictures * masks[..., None]


def gaussian_distance(shown: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Return the squared Fréchet distance of two Gaussians fitted to features `[N, D]`, two samples
    or more each.

    The trace of (C1 C2)^1/2 is the sum of the singular values of A Bᵀ, where A and B are the
    centred features over √(N - 1): exact at any rank, without a root of a D x D matrix.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.
    """
    a, b = np.asarray(shown, np.float64), np.asarray(wanted, np.float64)
    if min(len(a), len(b)) < 2:
        raise UsageError("few-samples", f"expected 2 samples, found {min(len(a), len(b))}")
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(max(0.0, gap + np.square(a).sum() + np.square(b).sum() - 2 * cross))


def read_openface(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the columns of a CSV of OpenFace 2.0 (`FeatureExtraction -aus -gaze -pose`), `[T]`.

    Raises:
        UsageError: no such file, columns missing, a value that is no number, or no frame.
    """
    check_input(path)
    wanted = [name for names in OPENFACE_COLUMNS.values() for name in names]
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file, skipinitialspace=True)
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in wanted if name not in header]
        if missing:
            raise UsageError(
                "not-openface",
                f"{path}: expected OpenFace's column {missing[0]}, found {len(header)} others; "
                "run FeatureExtraction with -aus -gaze -pose",
            )
        places = {name: header.index(name) for name in wanted}
        values: dict[str, list[float]] = {name: [] for name in wanted}
        for line, row in enumerate(rows, 2):
            if not any(row):
                continue
            for name, place in places.items():
                values[name].append(_number(row, place, f"{path}, line {line}, {name}"))
    if not values[wanted[0]]:
        raise UsageError("not-openface", f"{path}: expected frames, found only a header")
    return {name: np.array(column) for name, column in values.items()}


def _number(row: list[str], place: int, where: str) -> float:
    try:
        found = float(row[place])
    except (ValueError, IndexError):
        found = float("nan")
    if not np.isfinite(found):
        text = row[place] if place < len(row) else "nothing"
        raise UsageError("not-openface", f"{where}: expected a number, found {text!r:.40}")
    return found


def openface_correlations(shown: Path, wanted: Path) -> dict[str, float | None]:
    """Return ρ_AU, ρ_GZ and ρ_pose: Pearson correlations over time, averaged over the columns that
    move in both files; None where no column does.

    Raises:
        UsageError: as `read_openface`, or files of different lengths.
    """
    a, b = read_openface(shown), read_openface(wanted)
    lengths = [len(next(iter(columns.values()))) for columns in (a, b)]
    if lengths[0] != lengths[1]:
        raise UsageError(
            "other-length",
            f"expected as many frames in both files, {shown} has {lengths[0]}, {wanted} "
            f"{lengths[1]}; run OpenFace on videos of the same frames",
        )
    result: dict[str, float | None] = {}
    for name, columns in OPENFACE_COLUMNS.items():
        pairs = [(a[column], b[column]) for column in columns]
        moving = [(x, y) for x, y in pairs if min(x.std(), y.std()) > _CONSTANT]
        found = [float(np.corrcoef(x, y)[0, 1]) for x, y in moving]
        result[name] = float(np.mean(found)) if found else None
    return result


def arcface_judge(bundle: Bundle) -> Callable[[Tensor], Tensor] | None:
    """Return the ArcFace of a bundle (`ffhq`), None where it has none."""
    role = "faces_identity"
    if not bundle.has(role) or bundle.part(role).kind != "arcface":
        return None
    return cast(ArcFace, bundle.module(role)).embed
