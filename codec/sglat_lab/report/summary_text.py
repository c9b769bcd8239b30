"""Text of a benchmark's report: headline, settings, caveats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def headline(record: Record) -> str:
    """Return the outcome in two sentences, good or bad."""
    summary = record["summary"]
    ours = summary["sglat"]
    rate = ours["kbit_per_second_60s"]["mean"]
    cached = ours["kbit_per_second_cached"]["mean"]
    clips = ours["kbit_per_second_60s"]["clips"]
    text = (
        f"Over 60 s sglat spends {rate:.2f} kbit/s on a face, {cached:.2f} kbit/s once the "
        f"identity is known (mean of {clips} clip{'s' if clips > 1 else ''}). "
    )
    keys = [k for k in ("perceptual_face", "identity_loss") if k in ours["figures"]]
    if not keys:
        return text + "No network was at hand to measure perceptual distance or identity."
    won: list[str] = []
    lost: list[str] = []
    for name in list(summary)[1:]:
        theirs = summary[name]["figures"]
        is_won = all(ours["figures"][k]["mean"] < theirs[k]["mean"] for k in keys if k in theirs)
        (won if is_won else lost).append(name)
    both = "both perceptual distance (face) and L_ID"
    if not lost:
        text += f"At its whole rate over 60 s it is better in {both} than every anchor. "
    elif not won:
        text += f"At its whole rate over 60 s it beats no anchor in {both}. "
    else:
        text += (
            f"At its whole rate over 60 s it is better in {both} than {', '.join(won)}, but not "
            f"than {', '.join(lost)}. "
        )
    return text + _floor(record)


def _floor(record: Record) -> str:
    """Return in a sentence what lies below the anchors' lowest rates."""
    rates = [
        point["kbit_per_second_60s"]
        for clip in record["clips"]
        for name, points in clip["curves"].items()
        if name != "sglat"
        for point in points
    ]
    own = [p["kbit_per_second_60s"] for c in record["clips"] for p in c["curves"]["sglat"]]
    return (
        f"No anchor went below {min(rates):.1f} kbit/s over 60 s on any clip; sglat with its "
        f"identity cut to the first layer went down to {min(own):.1f}."
    )


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _origin(facts: Record) -> str:
    """Return in words how the files came about."""
    plan = facts["plan"]
    if plan is None:
        return "made earlier"
    text = f"encoded in this run: the first {plan['frames']} frames of each clip at most"
    if plan["tune_steps"] is not None:
        text += (
            f", {plan['tune_steps']} steps of tuning instead of the default, at a loss of quality"
        )
    return text + f"; planned for {facts['minutes']:g} minutes"


def about(record: Record) -> list[str]:
    """Return the settings of the run, in lines."""
    facts = record["about"]
    effort = facts["effort"]
    return [
        f"sglat {facts['sglat']}, bundle {facts['bundle']}, decoder {facts['decoder_id'][:16]}",
        f"{len(record['clips'])} clips of {_span([c['frames'] for c in record['clips']])} frames; "
        f"picture metrics on {effort['frames']} frames a clip, evenly spread; measures over time "
        f"on the first {effort['window']} frames" + (" (quick)" if facts["is_quick"] else ""),
        f".sglat files {_origin(facts)}",
        "time: " + ", ".join(f"{k} {v:.0f} s" for k, v in record["stage_seconds"].items()),
        *(f"{a['name']}: {_options(a)}" for a in facts["anchors"]),
    ]


def _options(anchor: Record) -> str:
    options = " ".join(f"{key}={value}" for key, value in anchor["options"].items())
    return f"{anchor['encoder']}, {options}, yuv420p, one intra frame, no B frames"


def _independence(facts: Record) -> list[str]:
    """Return which figures are not independent of what made the pictures, and whom that favours."""
    lines = []
    asked = facts["tuning_networks"]
    if asked is None:
        lines.append("Whether networks were minimised when the files were made is not known.")
    elif asked:
        lines.append(
            f"Not independent: tuning minimises the bundle's {' and '.join(asked)} network, "
            "taught by the networks that measure here. That favours sglat in perceptual distance "
            "and L_ID."
        )
    else:
        lines.append(
            "Tuning asks no network: it minimises pixel differences and structural similarity. "
            "That makes L1, PSNR, SSIM and MS-SSIM what sglat is tuned for, on a few frames; the "
            "anchors minimise squared differences on every frame."
        )
    if facts["bundle"] == "mini" and (facts["perceptual"] or facts["identity"]):
        lines.append(
            "Not quite independent: the embedded bundle's generator and inverter were trained "
            "with the networks that measure perceptual distance and L_ID here among their losses, "
            "and the landmark network that measures ρ and jitter taught the encoder's own tracker. "
            "None of these networks runs in the encoder; its own small ones were taught by them."
        )
    return lines


def caveats(record: Record) -> list[str]:
    """Return what a reader must know to weigh the figures."""
    facts = record["about"]
    lines = [
        "All codecs get the same aligned crops at the bundle's resolution; the background outside "
        "the crop is not coded by any of them. Anchors are counted without a container.",
        "Face region: inside MediaPipe's face oval on the source frame, as the paper masks the "
        "reference face. Perceptual distances average feature differences over that region.",
    ]
    lines.append(
        "MS-SSIM: as many of the five scales as have room for the window of 11 pixels (four at "
        "128 px), their weights brought to a sum of 1; not comparable with figures of five scales."
    )
    if facts["perceptual"]:
        lines.append(
            f"Perceptual distance: {facts['perceptual']}; not LPIPS, which was "
            + ("measured too." if record["not_measured"].get("LPIPS") is None else "not measured.")
        )
    if facts["identity"]:
        lines.append(f"L_ID: {facts['identity']}, not ArcFace.")
    lines += _independence(facts)
    if facts["signals"]:
        lines.append(
            f"ρ_AU, ρ_GZ and ρ_pose are proxies: {facts['signals']} (blendshapes, iris between the "
            "eye corners, head matrix), not OpenFace 2.0. Jitter: second differences of rigid "
            "landmarks."
        )
    return lines
