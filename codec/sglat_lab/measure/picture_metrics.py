"""All picture metrics of one version of a clip against its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat_lab.measure import pixels
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

Watch = Callable[[str, Pictures], Signals]

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
    watch: Watch | None = None,
) -> Reference:
    """Prepare the source crops `[T, R, R, 3]` of a clip.

    Args:
        crops: of the source.
        rows: frames of the picture metrics.
        window: consecutive frames for the measures over time.
        judges: measuring networks.
        landmarker: None where there is none.
        watch: gives signals under a name, as something that keeps them would.
    """
    pictures = crops[rows]
    masks = signals = None
    if landmarker is not None:
        look = watch or (lambda name, shown: landmarker.signals(shown))
        masks = face_masks(look("rows", pictures).points, crops.shape[1])
        signals = look("window", crops[:window])
    vectors = None if judges.identity is None else embeddings(judges.identity, pictures)
    return Reference(
        rows=rows, pictures=pictures, masks=masks, vectors=vectors, window=window, signals=signals
    )


_PIXELS: Final = (
    ("l1", pixels.l1), ("psnr", pixels.psnr_db), ("ssim", pixels.ssim),
    ("ms_ssim", pixels.ms_ssim),
)  # fmt: skip


def measure_pictures(
    shown: Pictures, reference: Reference, judges: Judges
) -> dict[str, list[float]]:
    """Return every picture metric frame by frame; what cannot be measured is left out.

    Args:
        shown: `[N, R, R, 3]` at the reference's rows.
        reference: the source.
        judges: measuring networks.
    """
    wanted, masks = reference.pictures, reference.masks
    found: dict[str, list[float]] = {}
    for name, function in _PIXELS:
        pairs = list(zip(shown, wanted, strict=True))
        found[name] = [min(function(a, b), BEST_PSNR_DB) for a, b in pairs]
        if masks is not None:
            found[f"{name}_face"] = [
                min(function(a, b, mask), BEST_PSNR_DB)
                for (a, b), mask in zip(pairs, masks, strict=True)
            ]
    for name, network in (("perceptual", judges.perceptual), ("lpips_alex", judges.lpips_alex)):
        if network is None:
            continue
        if name not in reference.features:
            reference.features[name] = features_of(network, wanted)
        whole, inside = distances_to(network, shown, reference.features[name], masks)
        found[name] = whole.tolist()
        if inside is not None:
            found[f"{name}_face"] = inside.tolist()
    if judges.identity is not None and reference.vectors is not None:
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
    trembling = own["jitter_pixels"]
    if trembling and "jitter_pixels" in figures:
        figures["jitter_ratio"] = figures["jitter_pixels"] / trembling
    return figures


def means(figures: dict[str, list[float]]) -> dict[str, float]:
    """Return the mean over frames of each metric."""
    return {key: float(np.mean(values)) for key, values in figures.items()}
