"""Picture metrics of one version of a clip against its source, whole or in a mask.

L1, PSNR, SSIM (paper, supplement F.2) and MS-SSIM on uint8 pictures; perceptual distance and
identity by the measuring networks. MS-SSIM has five scales and a window of 11 pixels, which needs
more than 160 pixels. Crops of 128 pixels have room for four; the weights of the first four are
brought to a sum of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat.errors import MissingExtraError, UsageError
from sglat_lab.measure.face_signals import compare, face_masks
from sglat_lab.measure.judges import (
    Judges,
    distances_to,
    embeddings,
    features_of,
    identity_losses,
)
from sglat_lab.measure.landmarks import Landmarker, Signals

Pictures = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Float64 = NDArray[np.float64]

PEAK: Final = 255.0
# Exponents of scales 1 to 5; Wang, Simoncelli, Bovik 2003, section 3.2
WEIGHTS: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA: Final = 1.5
RADIUS: Final = 5  # window of 11 pixels
C1: Final = (0.01 * 255) ** 2
C2: Final = (0.03 * 255) ** 2


def l1(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the mean absolute difference over pixels and channels, 0 to 255.

    Args:
        shown: `[H, W, 3]`.
        wanted: `[H, W, 3]`.
        mask: `[H, W]`, pixels that count; None: all.
    """
    difference = np.abs(_difference(shown, wanted))
    return float(_selected(difference, mask).mean())


def psnr_db(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite for equal pictures.

    Args: as `l1`.
    """
    error = float(np.square(_selected(_difference(shown, wanted), mask)).mean())
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def ssim(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the structural similarity, 1 for equal pictures.

    Gaussian window of sigma 1.5, mean over channels; with a mask, the mean of the map inside.

    Source: Wang et al. 2004, through scikit-image.

    Args: as `l1`.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingExtraError("scikit-image", extra="bench") from error
    _difference(shown, wanted)
    _, plane = structural_similarity(
        wanted, shown, data_range=PEAK, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    return float(_selected(plane, mask).mean())


def _difference(shown: Pictures, wanted: Pictures) -> NDArray[np.float64]:
    if shown.shape != wanted.shape or shown.dtype != np.uint8 or wanted.dtype != np.uint8:
        raise UsageError(
            "picture-shape",
            f"expected two uint8 pictures of one shape, found {shown.dtype} {shown.shape} and "
            f"{wanted.dtype} {wanted.shape}",
        )
    return shown.astype(np.float64) - wanted


def _selected(values: NDArray[np.float64], mask: Mask | None) -> NDArray[np.float64]:
    if mask is None:
        return values
    if not mask.any():
        raise UsageError("empty-mask", "expected a mask with at least one pixel, found none")
    return values[mask]


def scales_within(side: int) -> int:
    """Return how many scales have room for a whole window in pictures of a side in pixels.

    Raises:
        UsageError: not even one.
    """
    count: int = sum(side // 2**scale >= 2 * RADIUS + 1 for scale in range(len(WEIGHTS)))
    if not count:
        raise UsageError("picture-small", f"expected {2 * RADIUS + 1} pixels or more, found {side}")
    return count


def ms_ssim(shown: Pictures, wanted: Pictures, mask: Mask | None = None) -> float:
    """Return the multi-scale structural similarity, 1 for equal pictures.

    Contrast and structure at every scale, luminance at the coarsest, each averaged over channels
    and the pixels that have a whole window; with a mask, over the mask brought down to the scale.

    Args:
        shown: `[H, W, 3]`.
        wanted: `[H, W, 3]`.
        mask: `[H, W]`, pixels that count; None: all.

    Raises:
        UsageError: other shapes, too small, or an empty mask.

    Source: Wang, Simoncelli, Bovik 2003, Multi-scale structural similarity.
    """
    if shown.shape != wanted.shape:
        raise UsageError("picture-shape", f"expected {wanted.shape}, found {shown.shape}")
    a, b = shown.astype(np.float64), wanted.astype(np.float64)
    share = np.ones(shown.shape[:2]) if mask is None else mask.astype(np.float64)
    if not share.any():
        raise UsageError("empty-mask", "expected a mask with at least one pixel, found none")
    count = scales_within(min(shown.shape[:2]))
    exponents = np.asarray(WEIGHTS[:count]) / sum(WEIGHTS[:count])
    result = 1.0
    for scale, exponent in enumerate(exponents):
        luminance, contrast = _maps(a, b)
        found = luminance * contrast if scale == count - 1 else contrast
        result *= max(0.0, _mean(found, share)) ** exponent
        a, b, share = (_halved(plane) for plane in (a, b, share))
    return float(result)


def _mean(plane: Float64, share: Float64) -> float:
    """Return the weighted mean over channels and pixels whose window lies inside."""
    inside = (slice(RADIUS, -RADIUS),) * 2
    weight = share[inside]
    if not weight.any():  # a mask at the rim only
        inside, weight = (slice(None), slice(None)), share
    return float((plane[inside] * weight[..., None]).sum() / weight.sum() / plane.shape[2])


def _maps(a: Float64, b: Float64) -> tuple[Float64, Float64]:
    """Return luminance, and contrast times structure, `[H, W, 3]` each."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    var_a, var_b = _blurred(a * a) - mean_a**2, _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return luminance, (2 * covariance + C2) / (var_a + var_b + C2)


def _blurred(plane: Float64) -> Float64:
    try:
        from scipy.ndimage import gaussian_filter
    except ImportError as error:
        raise MissingExtraError("scipy", extra="bench") from error
    return np.asarray(gaussian_filter(plane, SIGMA, radius=RADIUS, axes=(0, 1)))


def _halved(plane: Float64) -> Float64:
    """Return means over 2 x 2 pixels; an odd rim falls away."""
    height, width = (size // 2 * 2 for size in plane.shape[:2])
    cut = plane[:height, :width]
    return np.asarray((cut[::2, ::2] + cut[1::2, ::2] + cut[::2, 1::2] + cut[1::2, 1::2]) / 4)


SignalsOf = Callable[[str, Pictures], Signals]

BEST_PSNR_DB: Final = 100.0  # stands for equal pictures in a mean


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a figure is called and which way is better."""

    key: str
    label: str
    is_higher_better: bool
    digits: int


METRICS: Final = (
    Metric(key="l1_face", label="L1, face", is_higher_better=False, digits=2),
    Metric(key="psnr_face", label="PSNR, face (dB)", is_higher_better=True, digits=2),
    Metric(key="ssim_face", label="SSIM, face", is_higher_better=True, digits=3),
    Metric(key="ms_ssim_face", label="MS-SSIM, face", is_higher_better=True, digits=3),
    Metric(key="perceptual_face", label="perceptual, face", is_higher_better=False, digits=4),
    Metric(key="lpips_alex_face", label="LPIPS (Alex), face", is_higher_better=False, digits=4),
    Metric(key="identity_loss", label="L_ID", is_higher_better=False, digits=4),
    Metric(key="l1", label="L1, crop", is_higher_better=False, digits=2),
    Metric(key="psnr", label="PSNR, crop (dB)", is_higher_better=True, digits=2),
    Metric(key="ssim", label="SSIM, crop", is_higher_better=True, digits=3),
    Metric(key="ms_ssim", label="MS-SSIM, crop", is_higher_better=True, digits=3),
    Metric(key="perceptual", label="perceptual, crop", is_higher_better=False, digits=4),
    Metric(key="lpips_alex", label="LPIPS (Alex), crop", is_higher_better=False, digits=4),
    Metric(key="rho_au_proxy", label="ρ_AU proxy", is_higher_better=True, digits=3),
    Metric(key="rho_gaze_proxy", label="ρ_GZ proxy", is_higher_better=True, digits=3),
    Metric(key="rho_pose", label="ρ_pose", is_higher_better=True, digits=3),
    Metric(key="jitter_pixels", label="landmark jitter (px)", is_higher_better=False, digits=3),
    Metric(key="jitter_ratio", label="jitter / source's", is_higher_better=False, digits=2),
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a clip's versions are compared with."""

    rows: NDArray[np.int64]
    """Frames of the picture metrics."""
    pictures: Pictures
    """`[N, R, R, 3]` source crops at `rows`."""
    masks: NDArray[np.bool_] | None
    """`[N, R, R]` face region; None: not known, so that face metrics are not measured."""
    vectors: NDArray[np.float32] | None
    """`[N, D]` identity vectors."""
    window: int
    """Consecutive frames from the first on, for the measures over time."""
    signals: Signals | None
    """Of the window."""
    features: dict[str, list[list[Tensor]]] = field(default_factory=dict)
    """Of `pictures`, by network, filled on first use."""


def make_reference(
    crops: Pictures,
    rows: NDArray[np.int64],
    window: int,
    judges: Judges,
    landmarker: Landmarker | None,
    *,
    kept: SignalsOf | None = None,
) -> Reference:
    """Prepare the source crops `[T, R, R, 3]` of a clip.

    Args:
        crops: of the source.
        rows: frames of the picture metrics.
        window: consecutive frames for the measures over time.
        judges: measuring networks.
        landmarker: None where there is none.
        kept: returns signals by name and pictures, from a cache; None: computes them.
    """
    pictures = crops[rows]
    masks = signals = None
    if landmarker is not None:
        look = kept or (lambda name, shown: landmarker.signals(shown))
        masks = face_masks(look("rows", pictures).points, crops.shape[1])
        signals = look("window", crops[:window])
    vectors = None if judges.identity is None else embeddings(judges.identity, pictures)
    return Reference(
        rows=rows, pictures=pictures, masks=masks, vectors=vectors, window=window, signals=signals
    )


_PIXELS: Final = (
    ("l1", l1), ("psnr", psnr_db), ("ssim", ssim),
    ("ms_ssim", ms_ssim),
)  # fmt: skip
ALL_NAMES: Final = (*(name for name, _ in _PIXELS), "perceptual", "lpips_alex", "identity_loss")
"""Of the metrics of pictures."""


def measure_pictures(
    shown: Pictures, reference: Reference, judges: Judges, *, names: Collection[str] = ALL_NAMES
) -> dict[str, list[float]]:
    """Return picture metrics frame by frame; what cannot be measured is left out.

    Args:
        shown: `[N, R, R, 3]` at the reference's rows.
        reference: the source.
        judges: measuring networks.
        names: of the metrics.
    """
    wanted, masks = reference.pictures, reference.masks
    found: dict[str, list[float]] = {}
    for name, function in _PIXELS:
        if name not in names:
            continue
        pairs = list(zip(shown, wanted, strict=True))
        found[name] = [min(function(a, b), BEST_PSNR_DB) for a, b in pairs]
        if masks is not None:
            found[f"{name}_face"] = [
                min(function(a, b, mask), BEST_PSNR_DB)
                for (a, b), mask in zip(pairs, masks, strict=True)
            ]
    for name, network in (("perceptual", judges.perceptual), ("lpips_alex", judges.lpips_alex)):
        if network is None or name not in names:
            continue
        if name not in reference.features:
            reference.features[name] = features_of(network, wanted)
        whole, inside = distances_to(network, shown, reference.features[name], masks)
        found[name] = whole.tolist()
        if inside is not None:
            found[f"{name}_face"] = inside.tolist()
    if "identity_loss" in names and judges.identity is not None and reference.vectors is not None:
        vectors = embeddings(judges.identity, shown)
        found["identity_loss"] = identity_losses(vectors, reference.vectors).tolist()
    return found


def measure_time(
    shown: Pictures, reference: Reference, landmarker: Landmarker | None
) -> dict[str, float]:
    """Return correlations and jitter of consecutive crops `[window, R, R, 3]`."""
    if landmarker is None or reference.signals is None:
        return {}
    side = shown.shape[1]
    own = compare(reference.signals, reference.signals, side=side)
    found = compare(landmarker.signals(shown), reference.signals, side=side)
    figures = {key: value for key, value in found.items() if value is not None}
    jitter = own["jitter_pixels"]
    if jitter and "jitter_pixels" in figures:
        figures["jitter_ratio"] = figures["jitter_pixels"] / jitter
    return figures


def change_figures(shown: Pictures, wanted: Pictures) -> dict[str, float]:
    """Return how the changes between neighbouring frames differ from the source's.

    Args:
        shown: consecutive crops, `[T, H, W, 3]`.
        wanted: of the source, likewise.

    Returns:
        `change_error`: mean absolute difference of the two changes, grey levels; `change_ratio`:
        mean absolute change over the source's, above 1 for flicker, below for detail that stands
        still. Empty for fewer than two frames, the ratio absent for a source that does not change.
    """
    if len(shown) < 2:
        return {}
    error, own, theirs = [], [], []
    for at in range(1, len(shown)):
        ours, source = (_difference(p[at], p[at - 1]) for p in (shown, wanted))
        error.append(float(np.abs(ours - source).mean()))
        own.append(float(np.abs(ours).mean()))
        theirs.append(float(np.abs(source).mean()))
    found = {"change_error": float(np.mean(error))}
    return found | ({"change_ratio": sum(own) / sum(theirs)} if any(theirs) else {})


def means(figures: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean over frames of each metric."""
    return {key: float(np.mean(values)) for key, values in figures.items()}
