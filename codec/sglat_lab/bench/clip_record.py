"""The record of one clip: every measurement of it as plain values."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sglat.errors import UsageError
from sglat_lab.bench.anchors import AnchorCodec
from sglat_lab.bench.cache import digest
from sglat_lab.bench.clip_bench import ClipBench
from sglat_lab.measure.face_signals import compare
from sglat_lab.measure.frechet import frechet_distance
from sglat_lab.measure.judges import Judges, embeddings, pooled_features
from sglat_lab.measure.rates import MINUTE, Version
from sglat_lab.report.aggregate import bd_table


def record_name(clip: ClipBench) -> str:
    """Return the name under which a clip's whole record is kept; other versions, another name."""
    return f"whole-{digest(*clip.others.values(), clip.work is not None)}"


def is_recorded(clip: ClipBench) -> bool:
    """Return whether nothing is left to measure."""
    return (clip.cache.folder / f"{record_name(clip)}.json").exists()


def clip_record(clip: ClipBench, codecs: Sequence[AnchorCodec]) -> dict[str, Any]:
    """Return a clip's record, measured unless it was before."""
    found: dict[str, Any] = clip.cache.record(record_name(clip), lambda: _measured(clip, codecs))
    return found


def _measured(clip: ClipBench, codecs: Sequence[AnchorCodec]) -> dict[str, Any]:
    ours = clip.ours()
    wanted = ours.cost.first_view(MINUTE)
    matched: dict[str, Any] = {}
    curves: dict[str, list[Version]] = {"sglat": [*clip.our_curve(), ours]}
    for codec in codecs:
        curves[codec.name] = clip.anchor_curve(codec)
        level, version = clip.match(codec, wanted)
        matched[codec.name] = version.to_json() | {"level": level}
    plain = {name: [v.to_json() for v in points] for name, points in curves.items()}
    record = clip.encoded.with_suffix(".json")
    reference = clip.reference
    trembling = None
    if reference.signals is not None:
        side = clip.parsed.header.resolution
        trembling = compare(reference.signals, reference.signals, side=side)["jitter_pixels"]
    return {
        "clip": clip.name,
        "frames": len(clip.parsed.motion.values),
        "frames_measured": len(clip.rows),
        "window": clip.window,
        "rates": clip.rates(),
        "ours": ours.to_json(),
        "curves": plain,
        "at_our_rate": matched,
        "bd_rate": bd_table(plain),
        "source_jitter_pixels": trembling,
        "loss": clip.loss(),
        "damage": clip.damage(),
        "encode": json.loads(record.read_text()) if record.exists() else None,
    }


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
