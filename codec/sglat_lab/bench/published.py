"""The paper's own metrics where their networks are at hand: FID, FVD, FVD_M, L_ID by ArcFace, and
correlations from CSV files that the user's OpenFace wrote.

Every frame of every clip counts, ours and each anchor at our rate, against the source's crops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.bundles.bundle import Bundle, bundles_folder, load_bundle
from sglat.bundles.manifest import MANIFEST_NAME
from sglat.errors import BundleError, UsageError
from sglat.networks.face_points import LIPS
from sglat_lab.bench import file_variants
from sglat_lab.bench.anchors import AnchorCodec
from sglat_lab.bench.clip_bench import ClipBench
from sglat_lab.measure import paper_metrics
from sglat_lab.measure.judges import embeddings, identity_losses

Pictures = NDArray[np.uint8]
Figures = dict[str, dict[str, float | str]]

ARCFACE_BUNDLE: Final = "ffhq"
MOUTH_MARGIN: Final = 0.1
"""Of the width of the mouth, on all sides of the lips, for FVD_M."""


@dataclass(frozen=True, kw_only=True)
class PublishedNetworks:
    """Those at hand; None where one is missing."""

    inception: nn.Module | None = None
    i3d: nn.Module | None = None
    arcface: Callable[[Tensor], Tensor] | None = None


def networks_at_hand(bundle: Bundle) -> PublishedNetworks:
    """Return the networks of the fetched bundles `metrics` and `ffhq`, or of the bundle measured.

    Raises:
        BundleError: one that is there is damaged.
    """

    def fetched(role: str) -> nn.Module | None:
        try:
            return paper_metrics.metrics_network(role)
        except BundleError as error:
            if error.code != "missing-weights":
                raise
            return None

    arcface = paper_metrics.arcface_judge(bundle)
    if arcface is None and (bundles_folder() / ARCFACE_BUNDLE / MANIFEST_NAME).is_file():
        arcface = paper_metrics.arcface_judge(load_bundle(ARCFACE_BUNDLE))
    return PublishedNetworks(inception=fetched("inception"), i3d=fetched("i3d"), arcface=arcface)


def mouth_masks(points: NDArray[np.floating], side: int) -> NDArray[np.bool_]:
    """Return the region of the mouth, `[T, side, side]`, of landmarks `[T, 478, 2]` in unit crop
    coordinates."""
    masks = np.zeros((len(points), side, side), np.uint8)
    for mask, one in zip(masks, points, strict=True):
        lips = np.asarray(one)[list(LIPS)] * side
        hull = cv2.convexHull(np.rint(lips).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
        reach = max(1, round(MOUTH_MARGIN * float(np.ptp(lips[:, 0]))))
        mask[:] = cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8))
    return masks.astype(bool)


def published_probe(
    networks: PublishedNetworks,
    clips: Sequence[ClipBench],
    codecs: Sequence[AnchorCodec],
    records: Sequence[dict[str, Any]],
    openface: Path | None = None,
) -> Figures:
    """Return figures by metric and codec, a reason in words in place of one that has none.

    Args:
        networks: those at hand; metrics of missing ones are left out.
        clips: measured, with their records.
        codecs: anchors, shown at our rate.
        records: of the clips, with the anchors' levels.
        openface: folder with `<clip>.csv` of each source and `<clip>.sglat.csv` of our decoded
            file, by OpenFace on videos of the same frames.

    Raises:
        UsageError: a CSV file is missing or damaged.
    """
    found: Figures = {}
    for name, sets in _shown(clips, codecs, records):
        for metric, measure in _metrics(networks, clips).items():
            row = found.setdefault(metric, {})
            try:
                row[name] = measure(sets)
            except UsageError as error:
                row[name] = f"not measured: {error.message}"
    if openface is not None:
        for metric, value in _openface(clips, openface).items():
            found[metric] = {"sglat": value}
    return found


def _shown(
    clips: Sequence[ClipBench], codecs: Sequence[AnchorCodec], records: Sequence[dict[str, Any]]
) -> Iterator[tuple[str, list[Pictures]]]:
    """Yield each codec's name and all frames of all clips as it shows them."""
    yield "sglat", [file_variants.decoded(clip.encoded, clip.bundle)[0] for clip in clips]
    for codec in codecs:
        levels = [record["at_our_rate"][codec.name]["level"] for record in records]
        yield (
            codec.name,
            [
                clip.anchor_pictures(codec, level, np.arange(len(clip.source)))
                for clip, level in zip(clips, levels, strict=True)
            ],
        )


def _metrics(
    networks: PublishedNetworks, clips: Sequence[ClipBench]
) -> dict[str, Callable[[list[Pictures]], float]]:
    """Return what can be measured of the pictures of all clips."""
    sources = [np.asarray(clip.source) for clip in clips]
    inception, i3d, arcface = networks.inception, networks.i3d, networks.arcface
    found: dict[str, Callable[[list[Pictures]], float]] = {}
    if inception is not None:
        found["FID"] = lambda shown: paper_metrics.fid(
            inception, np.concatenate(shown), np.concatenate(sources)
        )
    if i3d is not None:
        found["FVD"] = lambda shown: paper_metrics.fvd(i3d, _fragments(shown), _fragments(sources))
        if all(clip.landmarker is not None for clip in clips):

            def mouths(shown: list[Pictures]) -> float:
                masks = [mouth_masks(clip.signals.points, clip.source.shape[1]) for clip in clips]
                ours, theirs = (
                    _fragments(
                        [paper_metrics.mouth_only(a, b) for a, b in zip(part, masks, strict=True)]
                    )
                    for part in (shown, sources)
                )
                return paper_metrics.fvd(i3d, ours, theirs)

            found["FVD_M"] = mouths
    if arcface is not None:
        found["L_ID (ArcFace)"] = lambda shown: float(
            np.concatenate([
                identity_losses(embeddings(arcface, a), embeddings(arcface, b))
                for a, b in zip(shown, sources, strict=True)
            ]).mean()
        )  # fmt: skip
    return found


def _fragments(sets: list[Pictures]) -> Pictures:
    """Return the fragments of all clips together; a clip shorter than one gives none."""
    count = paper_metrics.FRAGMENT_FRAMES
    whole = [pictures[: len(pictures) // count * count] for pictures in sets]
    return paper_metrics.fragments_of(np.concatenate(whole))


def _openface(clips: Sequence[ClipBench], folder: Path) -> dict[str, float | str]:
    """Return the mean correlations over the clips."""
    rows = [
        paper_metrics.openface_correlations(
            folder / f"{clip.name}.sglat.csv", folder / f"{clip.name}.csv"
        )
        for clip in clips
    ]
    found: dict[str, float | str] = {}
    for metric in paper_metrics.OPENFACE_COLUMNS:
        values = [row[metric] for row in rows]
        moving = [value for value in values if value is not None]
        found[metric] = float(np.mean(moving)) if moving else "not measured: nothing moves"
    return found
