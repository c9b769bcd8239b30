"""Fréchet distances between sets of features, each under the name of its own network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError
from sglat_lab.bench.anchors import AnchorCodec
from sglat_lab.bench.clip_bench import ClipBench
from sglat_lab.measure.judges import Judges, embeddings, pooled_features


def frechet_distance(shown: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Return the squared Fréchet distance of two Gaussians fitted to features; 0 for equal sets.

    Args:
        shown: `[N, D]`, more samples than dimensions.
        wanted: `[M, D]`, the same.

    Raises:
        UsageError: too few samples for a covariance of full rank.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500, equation 6.
    """
    try:
        from scipy.linalg import eigvalsh
    except ImportError as error:
        raise MissingExtraError("scipy", extra="bench") from error
    a, b = np.asarray(shown, np.float64), np.asarray(wanted, np.float64)
    dimensions = a.shape[1]
    if min(len(a), len(b)) <= dimensions:
        raise UsageError(
            "few-samples", f"expected more than {dimensions} frames, found {min(len(a), len(b))}"
        )
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = _square_root(first)
    # trace of (C1 C2)^1/2 = sum of the roots of the eigenvalues of C1^1/2 C2 C1^1/2
    cross = np.sqrt(np.clip(eigvalsh(root @ second @ root), 0, None)).sum()
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(max(0.0, gap + np.trace(first) + np.trace(second) - 2 * cross))


def _square_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def distances(
    judges: Judges,
    clips: Sequence[ClipBench],
    codecs: Sequence[AnchorCodec],
    records: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return distances between the sets of all clips' frames, ours and the anchors' at our rate."""
    networks: dict[str, Callable[[Any], Any]] = {}
    identity, perceptual = judges.identity, judges.perceptual
    if identity is not None:
        networks["MobileFaceNet (128)"] = lambda p: embeddings(identity, p)
    if perceptual is not None:
        networks["SqueezeNet (512)"] = lambda p: pooled_features(perceptual, p)
    sets: dict[str, list[Any]] = {"sglat": [clip.shown(clip.encoded, "ours") for clip in clips]}
    for codec in codecs:
        levels = [record["at_our_rate"][codec.name]["level"] for record in records]
        sets[codec.name] = [
            clip.matched_pictures(codec, level)[0]
            for clip, level in zip(clips, levels, strict=True)
        ]
    source = np.concatenate([clip.reference.pictures for clip in clips])
    found: dict[str, Any] = {}
    for name, network in networks.items():
        wanted = network(source)
        found[name] = {}
        for codec_name, parts in sets.items():
            try:
                shown = network(np.concatenate(parts))
                found[name][codec_name] = frechet_distance(shown, wanted)
            except UsageError as error:
                found[name][codec_name] = f"not measured: {error.message}"
    return found
