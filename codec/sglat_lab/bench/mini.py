"""Measure a bundle's own weights against the bars of the embedded generator, before any tuning.

    python -m sglat_lab.bench.mini --bundle codec/sglat/bundles/mini --shared ../shared \
        --out DIR --page benchmarks/results/mini.md

Everything is measured by public networks that no part of the bundle was made from, on pictures and
clips that were never trained on; where the bundle's own landmark network measures, it says so.
Writes `figures.json` and sheets into the output folder, and the page.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from sglat.bundles.bundle import load_bundle
from sglat_lab.bench.mini_measures import (
    Measured,
    controls_figures,
    inversion,
    pose_figures,
    refined,
    samples,
    speed,
    transfer,
)
from sglat_lab.bench.mini_people import held_back_frames, held_back_stills
from sglat_lab.measure.judges import load_judges
from sglat_lab.report.markdown import Table
from sglat_lab.report.provenance import commit, machine


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take all figures; pictures go to the output folder."""
    bundle = load_bundle(options.bundle)
    judges = load_judges(options.shared / "teachers", heads=options.lpips_heads)
    measured = Measured(bundle=bundle, judges=judges, out=options.out)
    stills = held_back_stills(options.shared / "data")
    record: dict[str, Any] = {
        "bundle": bundle.name,
        "decoder_id": bundle.decoder_id.hex(),
        "perceptual": judges.perceptual.name if judges.perceptual else None,
        "stills": len(stills.images),
        "load": round(os.getloadavg()[0], 1),
    }
    began = time.monotonic()

    def take(name: str, figures: Any) -> None:
        record[name] = figures
        print(f"{time.monotonic() - began:.0f} s  {name}: {json.dumps(figures)[:300]}", flush=True)

    with torch.no_grad():
        take("inversion", inversion(measured, stills))
        frames = held_back_frames(options.shared / "data")
        take("transfer", transfer(measured, frames, pairs=48))
        take("samples", samples(measured, stills, options.shared / "data"))
        take("pose", pose_figures(measured, stills, options.shared / "teachers"))
        take("controls", controls_figures(measured, stills, options.card_sheet))
        take("speed", speed(measured, threads=2, batch=8))
    take("refined", refined(measured, stills, count=options.refine or len(stills.images)))
    record["seconds"] = round(time.monotonic() - began)
    record["processor_seconds"] = round(time.process_time())
    return record


def page(record: dict[str, Any], command: str) -> str:
    """Return the figures as Markdown."""
    head = (
        "# The weights of the embedded bundle\n\n"
        "How good the generator, inverter, pose flow and controls are by themselves, before a clip "
        "tunes them; what a\nuser sees comes after tuning ([clips.md](clips.md)). Measured by "
        "networks that no part of the bundle was made\nfrom, on pictures that were never trained "
        f"on.\n\nBundle `{record['bundle']}`, decoder id {record['decoder_id'][:8]}…, commit "
        f"{record['commit']}, {record['machine']}, load average at the start {record['load']}, "
        f"{record['seconds']} s ({record['processor_seconds']} s of processor time).\n\n"
        f"    {command}\n\n"
    )
    tables = [_bars(record), _inversions(record), _samples(record), _pose(record),
              _controls(record)]  # fmt: skip
    return head + "\n".join(table.markdown() for table in tables)


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _bars(record: dict[str, Any]) -> Table:
    pose, controls = record["pose"], record["controls"]
    rows = []
    for name, still in (("inversion as the encoder does it", record["refined"]["end"]),
                        ("inverter alone", record["inversion"])):  # fmt: skip
        rows += [
            [f"{name}, PSNR", "≥ 23.5 dB", f"{still['psnr']:.2f} dB",
             _verdict(still["psnr"] >= 23.5)],
            [f"{name}, LPIPS-like", "≤ 0.07", f"{still['perceptual']:.3f}",
             _verdict(still["perceptual"] <= 0.07)],
            [f"{name}, MobileFaceNet cosine", "≥ 0.45", f"{still['identity']:.3f}",
             _verdict(still["identity"] >= 0.45)],
        ]  # fmt: skip
    for axis in ("yaw", "pitch"):
        for name, figures in pose["by"].items():
            found = figures[axis]
            is_met = found["r"] >= 0.95 and 0.7 <= found["slope"] <= 1.3
            text = f"r {found['r']:.3f}, slope {found['slope']:.2f}"
            bar = "r ≥ 0.95, slope 0.7 to 1.3"
            rows.append([f"{axis} by the {name}", bar, text, _verdict(is_met)])
        ends = pose["identity"][axis]
        rows.append([f"{axis}, cosine at the ends", "≥ 0.6", f"{ends:.3f}", _verdict(ends >= 0.6)])
    local = sum(row["ratio"] >= 3 for row in controls["rows"])
    least = min(row["identity"] for row in controls["rows"])
    keeping = sum(row["identity"] >= 0.8 for row in controls["rows"])
    rows += [
        ["controls that move their region ≥ 3 times as much as the rest", "32 of 32",
         f"{local} of 32", _verdict(local == 32)],
        ["controls that keep cosine ≥ 0.8 at ±2 σ", "32 of 32",
         f"{keeping} of 32, least {least:.3f}", _verdict(keeping == 32)],
        ["speed, batch 8, two threads", "≥ 40 frames/s",
         f"{record['speed']['frames_per_second']:.1f} frames/s",
         _verdict(record["speed"]["frames_per_second"] >= 40)],
    ]  # fmt: skip
    cost = record["speed"]["processor_milliseconds"]
    steps, count = record["refined"]["steps"], record["refined"]["end"]["count"]
    notes = [
        f"The encoder inverts the ID frame by the inverter and {steps} steps on W+ from there; "
        f"here {count} of the {record['stills']} held-back stills are inverted so.",
        f"LPIPS-like is: {record['perceptual']}.",
        "Speed is by the wall clock on a machine that other work shared; the renderer itself used "
        f"{cost:.1f} ms of processor time a frame, which two cores of its own would turn into "
        f"{2000 / cost:.0f} frames/s at most.",
    ]
    return Table(title="The bars", head=["figure", "bar", "found", ""], rows=rows, notes=notes)


def _inversions(record: dict[str, Any]) -> Table:
    lines = (("held-back stills by the inverter alone", "inversion"),
             ("the same, those that are refined", "refined_start"),
             (f"those, W+ refined for {record['refined']['steps']} steps", "refined_end"),
             ("frame B from A's latent and 34 numbers", "transfer"),
             ("frame A itself against frame B", "still_frame"))  # fmt: skip
    flat = {
        "inversion": record["inversion"],
        "refined_start": record["refined"]["start"],
        "refined_end": record["refined"]["end"],
        "transfer": record["transfer"]["moved"],
        "still_frame": record["transfer"]["unmoved"],
    }
    rows = [
        [
            title,
            str(f["count"]),
            f"{f['psnr']:.2f}",
            f"{f['perceptual']:.3f}",
            f"{f['identity']:.3f}",
        ]
        for title, f in ((title, flat[key]) for title, key in lines)
    ]
    return Table(
        title="Pictures",
        head=["what", "pictures", "PSNR dB", "LPIPS-like", "cosine"],
        rows=rows,
        notes=[
            "Refinement minimises squared error and the bundle's own perceptual distance, not the "
            "judge's."
        ],
    )


def _samples(record: dict[str, Any]) -> Table:
    rows = [
        [name, f"{f['identity']:.3f}", f"{f['squeeze']:.3f}"]
        for name, f in record["samples"]["distances"].items()
    ]
    count = record["samples"]["count"]
    note = (
        f"Squared Fréchet distance to the {record['stills']} held-back stills, in pooled features "
        f"of the last SqueezeNet level and in MobileFaceNet's unit vectors; {count} pictures each, "
        "and the mirror image of every picture, ψ = 0.7 for samples. Few pictures: the row of real "
        "training stills is the floor."
    )
    return Table(
        title="Samples", head=["set", "MobileFaceNet", "SqueezeNet"], rows=rows, notes=[note]
    )


def _pose(record: dict[str, Any]) -> Table:
    rows = []
    for name, figures in record["pose"]["by"].items():
        for axis in ("yaw", "pitch"):
            f = figures[axis]
            means = ", ".join(f"{a:+d}: {m:+.1f}" for a, m in f["means"])
            rows.append([name, axis, f"{f['r']:.3f}", f"{f['slope']:.2f}", means])
    notes = [
        f"{record['pose']['people']} persons, half of them inverted stills, half sampled. Slope "
        "and r are of the measured angle on the asked one over all persons. FSA-Net by itself "
        "follows the labels of real pictures with a slope of 1.05 in yaw and 0.75 in pitch.",
        *record["pose"]["missing"],
    ]
    head = ["measured by", "axis", "r", "slope", "mean found at each asked angle, degrees"]
    return Table(title="Pose flow", head=head, rows=rows, notes=notes)


def _controls(record: dict[str, Any]) -> Table:
    rows = [
        [r["name"], r["group"], f"{r['inside']:.3f}", f"{r['ratio']:.2f}", f"{r['identity']:.3f}",
         f"{r['agreement']:.2f}"]
        for r in record["controls"]["rows"]
    ]  # fmt: skip
    note = (
        f"At ±2 σ on {record['controls']['people']} persons. Change is the mean L1 in the region "
        "of the group, pictures in [-1, 1]; ratio is that over the mean L1 of all other pixels; "
        "regions are parsed by the bundle's own network. Agreement is the mean cosine between the "
        "changes that the control makes to different persons: 1 is the same change on everybody."
    )
    head = ["control", "group", "change", "ratio", "cosine", "agreement"]
    return Table(title="Controls", head=head, rows=rows, notes=[note])


def main() -> None:
    """Parse the options, measure, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", default="mini", help="name or folder")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, required=True, help="for sheets; outside the checkout")
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    parser.add_argument("--card-sheet", type=Path, help="sheet of sampled people only, JPEG or PNG")
    parser.add_argument("--lpips-heads", type=Path, help="lpips v0.1 squeeze.pth")
    parser.add_argument(
        "--refine", type=int, default=0, help="stills to refine; 0: all, which takes an hour or so"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"commit": commit(), "machine": machine(), **measure(options)}
    (options.out / "figures.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    command = "python -m sglat_lab.bench.mini --bundle BUNDLE --shared SHARED --out OUT --page FILE"
    if options.lpips_heads:
        command += " --lpips-heads squeeze.pth"
    if options.refine:
        command += f" --refine {options.refine}"
    text = page(record, command)
    print(text)
    if options.page:
        options.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
