"""The record of one clip: every measurement of it as plain values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sglat_lab.bench.anchors import AnchorCodec
from sglat_lab.bench.cache import digest
from sglat_lab.bench.clip_bench import ClipBench, Version
from sglat_lab.measure.face_signals import compare
from sglat_lab.measure.rates import MINUTE
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
        "curves": {name: [v.to_json() for v in points] for name, points in curves.items()},
        "at_our_rate": matched,
        "bd_rate": bd_table(curves),
        "source_jitter_pixels": trembling,
        "loss": clip.loss(),
        "damage": clip.damage(),
        "encode": json.loads(record.read_text()) if record.exists() else None,
    }
