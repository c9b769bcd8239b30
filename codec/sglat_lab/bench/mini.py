"""Measure a bundle's own weights against the targets of the embedded generator, before any tuning.

    python -m sglat_lab.bench.mini --bundle codec/sglat/bundles/mini --shared ../shared \
        --out DIR --page benchmarks/results/mini.md

Measured on pictures and clips that were never trained on. SqueezeNet features and MobileFaceNet
measure here and were losses in training; poses are also measured by the bundle's own landmark
network, which the page names. Writes `figures.json`, sheets and the decoded packs into the output
folder, and the page with its record beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final

import torch

from sglat.bundles.bundle import load_bundle
from sglat.decoder.synthesizer import Person, Renderer, Synthesizer
from sglat_lab.bench.mini_measures import (
    Measured,
    controls_figures,
    inversion,
    pose_figures,
    refined,
    samples,
    transfer,
)
from sglat_lab.bench.synthesis import CLOCKS, best_times
from sglat_lab.measure.judges import load_judges
from sglat_lab.report.pages import Record, provenance, targets, write_page
from sglat_lab.train.data import FaceSampler, prepare

SPEED_RUNS: Final = 30  # fewer differ by a tenth on a shared machine


def measure(options: argparse.Namespace) -> Record:
    """Take all figures; pictures go to the output folder."""
    bundle = load_bundle(options.bundle)
    judges = load_judges(options.shared / "teachers", heads=options.lpips_heads)
    measured = Measured(bundle=bundle, judges=judges, out=options.out)
    packs = options.shared / "data"
    faces = prepare(packs, options.out / "packs", 128)
    sampler = FaceSampler(faces, packs, device=torch.device("cpu"), seed=0)
    stills = sampler.batch(sampler.val_stills)
    record: Record = {
        "bundle": bundle.name,
        "decoder_id": bundle.decoder_id.hex(),
        "perceptual": judges.perceptual.name if judges.perceptual else None,
        "stills": len(stills),
        "load": round(os.getloadavg()[0], 1),
    }
    began = time.monotonic()

    def take(name: str, figures: Any) -> None:
        record[name] = figures
        print(f"{time.monotonic() - began:.0f} s  {name}: {json.dumps(figures)[:300]}", flush=True)

    with torch.no_grad():
        take("inversion", inversion(measured, stills))
        take("transfer", transfer(measured, sampler, pairs=48))
        take("samples", samples(measured, stills, sampler))
        take("pose", pose_figures(measured, stills, options.shared / "teachers"))
        take("controls", controls_figures(measured, stills, options.card_sheet))
        take("speed", speed(measured, threads=2, batch=8))
    take("refined", refined(measured, stills, count=options.refine or len(stills)))
    record["seconds"] = round(time.monotonic() - began)
    record["processor_seconds"] = round(time.process_time())
    record["targets"] = targets("mini", meters=list(record["pose"]["by"]))
    return record


def speed(measured: Measured, *, threads: int, batch: int) -> dict[str, Any]:
    """Return frames a second of the decoder's own renderer, best of several runs."""
    bundle, before = measured.bundle, torch.get_num_threads()
    torch.set_num_threads(threads)
    generator = bundle.generator
    person = Person(ws=generator.repeat(generator.w_avg[None])[0], neutral=torch.zeros(34))
    renderer = Renderer(Synthesizer.of(bundle), person, workers=threads)
    motion = torch.randn(batch, 34, generator=torch.Generator().manual_seed(0))
    wall, processor = (
        best_times(
            {"": lambda: renderer.render(motion)},
            rounds=SPEED_RUNS, device=motion.device, clock=clock,
        )[""]
        for clock in CLOCKS.values()
    )  # fmt: skip
    torch.set_num_threads(before)
    return {
        "frames_per_second": round(1e3 * batch / wall, 2),
        "processor_milliseconds": round(processor / batch, 2),
        "load": round(os.getloadavg()[0], 1),
    }


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
    run = provenance("python -m sglat_lab.bench.mini")
    record = measure(options) | {"runs": [run]}
    print(write_page(options.out / "figures.json", record, "mini"))
    if options.page:
        write_page(options.page, record, "mini")


if __name__ == "__main__":
    main()
