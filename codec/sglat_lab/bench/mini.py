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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.channels import GROUPS
from sglat.bundles.bundle import Bundle, draw_identities, load_bundle
from sglat.bundles.controls import NUM_CONTROLS
from sglat.bundles.discover import part_masks
from sglat.encoder.invert import RefineConfig, refine_latents
from sglat.encoder.workfile import config_hash
from sglat.errors import UsageError
from sglat.files import atomic_file
from sglat.networks.pixels import to_pixels
from sglat_lab.bench.synthesis import renderer_speed
from sglat_lab.measure.judges import (
    Judges,
    embeddings,
    frechet_distance,
    load_judges,
    perceptual_distances,
    pooled_features,
)
from sglat_lab.measure.landmarks import EmbeddedLandmarker, Landmarker
from sglat_lab.measure.teachers import FsaNetPair
from sglat_lab.report.pages import Record, provenance, targets, write_page
from sglat_lab.report.plots import write_sheet
from sglat_lab.train.bundle_fits import rendered, turned
from sglat_lab.train.data import FaceBatch, FaceSampler, prepare

BATCH: Final = 16
REFINED_TOGETHER: Final = 3  # pictures: more are no faster on a processor
YAWS: Final = (-20, -10, 0, 10, 20)  # degrees
PITCHES: Final = (-12, -6, 0, 6, 12)
LOCAL_RATIO: Final = 3  # change inside a control's region over that outside
KEEPING_COSINE: Final = 0.8
SIDE: Final = 128  # pixels

Meter = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Pictures `[N, H, W, 3]` to yaw and pitch `[N, 2]` in degrees; NaN where no face was found."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The bundle under test and the measuring networks."""

    bundle: Bundle
    judges: Judges
    out: Path

    def render(self, ws: Tensor) -> NDArray[np.uint8]:
        """Return pictures `[N, 128, 128, 3]` of latents `[N, L, D]`."""
        return rendered(self.bundle.generator, ws)

    def invert(self, pictures: Tensor) -> Tensor:
        """Return latents `[N, L, D]` of crops."""
        return torch.cat([self.bundle.inverter(part) for part in pictures.split(BATCH)])

    def identity(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return MobileFaceNet's unit vectors `[N, 128]`."""
        assert self.judges.identity is not None, self.judges.missing
        return embeddings(self.judges.identity, pictures)

    def compare(self, shown: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> dict[str, Any]:
        """Return mean PSNR of each picture, perceptual distance and identity cosine."""
        assert self.judges.perceptual is not None, self.judges.missing
        error = np.square(shown.astype(np.float64) - wanted).mean((1, 2, 3))
        psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-6))
        distance = perceptual_distances(self.judges.perceptual, shown, wanted)
        cosine = (self.identity(shown) * self.identity(wanted)).sum(1)
        return {
            "count": len(shown),
            "psnr": round(float(psnr.mean()), 3),
            "perceptual": round(float(distance.mean()), 4),
            "identity": round(float(cosine.mean()), 4),
        }


def inversion(measured: Measured, stills: FaceBatch) -> dict[str, Any]:
    """Return the error of the inverter alone on all stills; writes a sheet."""
    target, shown = stills.pixels, measured.render(measured.invert(stills.images))
    rows = np.linspace(0, len(shown) - 1, 12).astype(int)
    write_sheet(measured.out / "inversion.png", [target[rows], shown[rows]])
    return measured.compare(shown, target)


def refined(measured: Measured, stills: FaceBatch, *, count: int) -> dict[str, Any]:
    """Return the error of stills before and after refining their W+ latents as the encoder does;
    writes a sheet."""
    rows = np.linspace(0, len(stills) - 1, count).astype(int).tolist()
    some = stills.part(rows)
    target, images = some.pixels, some.images.contiguous()
    with torch.no_grad():
        start = measured.invert(images)
    kept = config_hash(RefineConfig(), measured.bundle.decoder_id.hex(), rows)
    latents = _refined_latents(measured, images, start, measured.out / kept)
    with torch.no_grad():
        before, after = measured.render(start), measured.render(latents)
        shown = np.linspace(0, count - 1, min(count, 12)).astype(int)
        sheet = [pictures[shown] for pictures in (target, before, after)]
        write_sheet(measured.out / "refined.png", sheet)
        return {
            "steps": RefineConfig().steps,
            "start": measured.compare(before, target),
            "end": measured.compare(after, target),
        }


def _refined_latents(measured: Measured, pictures: Tensor, start: Tensor, kept: Path) -> Tensor:
    """Refine latents part by part; a later run goes on behind the parts that a folder keeps."""
    kept.mkdir(exist_ok=True)
    parts = []
    for at in range(0, len(pictures), REFINED_TOGETHER):
        path, part = kept / f"{at}.npy", slice(at, at + REFINED_TOGETHER)
        if not path.exists():
            found = refine_latents(measured.bundle, pictures[part], start[part], RefineConfig())
            with atomic_file(path) as file:
                np.save(file, found.numpy())
            print(f"refined {min(part.stop, len(pictures))} of {len(pictures)}", flush=True)
        parts.append(torch.from_numpy(np.load(path)))
    return torch.cat(parts)


def transfer(measured: Measured, sampler: FaceSampler, *, pairs: int) -> dict[str, Any]:
    """Return the error of frame B from frame A's latent and 34 numbers, within unseen clips."""
    bundle = measured.bundle
    one, other = map(sampler.batch, sampler.val_pairs(pairs))
    before, after = (
        bundle.module("estimator")(f.points, f.blendshapes, f.pose_degrees) for f in (one, other)
    )
    turned = bundle.pose_flow.turn(
        measured.invert(one.images), one.pose_degrees, other.pose_degrees
    )
    styles = bundle.controls.apply(bundle.generator.styles(turned), after - before)
    shown = np.concatenate([
        to_pixels(bundle.generator.synthesize([style[at : at + BATCH] for style in styles]))
        for at in range(0, pairs, BATCH)
    ])  # fmt: skip
    still, target = one.pixels, other.pixels
    write_sheet(measured.out / "transfer.png", [still[:12], target[:12], shown[:12]])
    return {"moved": measured.compare(shown, target), "unmoved": measured.compare(still, target)}


def samples(measured: Measured, stills: FaceBatch, sampler: FaceSampler) -> dict[str, Any]:
    """Return Fréchet distances of samples, inversions and real stills; writes a sheet of 64."""
    assert measured.judges.perceptual is not None, measured.judges.missing
    perceptual = measured.judges.perceptual
    count = len(stills)
    training = sampler.stills[:: max(1, len(sampler.stills) // count)][:count]
    drawn = measured.render(draw_identities(measured.bundle, count, seed=1))
    write_sheet(measured.out / "samples.png", [drawn[at : at + 8] for at in range(0, 64, 8)])
    inverted = measured.render(measured.invert(stills.images))
    sets = {"random people": drawn, "inverted held-back stills": inverted,
            "real training stills": sampler.batch(training).pixels}  # fmt: skip

    def features(pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        both = np.concatenate([pictures, pictures[:, :, ::-1]])
        return measured.identity(both), pooled_features(perceptual, both)

    real = features(stills.pixels)
    distances = {}
    for name, pictures in sets.items():
        found = features(pictures)
        distances[name] = {
            key: round(frechet_distance(a, b), 4)
            for key, a, b in zip(("identity", "squeeze"), found, real, strict=True)
        }
    return {"count": count, "distances": distances}


def pose_figures(measured: Measured, stills: FaceBatch, teachers: Path) -> dict[str, Any]:
    """Return correlation and slope of measured on requested angles, and identity at the ends."""
    ws, source = _people(measured, stills, inverted=5, sampled=5)
    landmarker = EmbeddedLandmarker(measured.bundle.faces)
    other, missing = _fsa_meter(teachers, landmarker)

    def own(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return landmarker.signals(pictures).pose

    meters = {"embedded landmark network": own} | ({"FSA-Net pair": other} if other else {})
    source[5:] = torch.from_numpy(own(measured.render(ws[5:])))
    base = measured.identity(measured.render(ws))
    found: dict[str, Any] = {"people": len(ws), "by": {}, "identity": {}, "missing": missing}
    sheet: list[list[NDArray[np.uint8]]] = [[] for _ in ws]
    for axis, (name, angles) in enumerate((("yaw", YAWS), ("pitch", PITCHES))):
        shown = [turned(measured.bundle, ws, source, axis, angle) for angle in angles]
        for row, person in enumerate(sheet):
            person += [pictures[row] for pictures in shown]
        for meter, read in meters.items():
            table = np.stack([read(pictures)[:, axis] for pictures in shown])  # [angles, people]
            found["by"].setdefault(meter, {})[name] = _line(angles, table)
        ends = [(measured.identity(shown[at]) * base).sum(1).mean() for at in (0, -1)]
        found["identity"][name] = round(float(np.mean(ends)), 4)
    write_sheet(measured.out / "pose.png", sheet)
    return found


def _line(angles: tuple[int, ...], table: NDArray[np.floating]) -> dict[str, Any]:
    requested = np.repeat(np.array(angles, float)[:, None], table.shape[1], 1)
    kept = np.isfinite(table)
    slope = np.polyfit(requested[kept], table[kept], 1)[0]
    means = [
        (angle, round(float(np.nanmean(row)), 2)) for angle, row in zip(angles, table, strict=True)
    ]
    r = np.corrcoef(requested[kept], table[kept])[0, 1]
    return {"r": round(float(r), 4), "slope": round(float(slope), 3), "means": means,
            "unseen": int((~kept).sum())}  # fmt: skip


def _fsa_meter(teachers: Path, landmarker: Landmarker) -> tuple[Meter | None, list[str]]:
    """Return the FSA-Net pair as a meter, or what is missing."""
    try:
        network = FsaNetPair(teachers)
    except UsageError as error:
        return None, [f"FSA-Net: {error.message}."]

    def read(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen = landmarker.signals(pictures)
        angles = seen.pose.copy()  # NaN without a face
        for at in np.flatnonzero(seen.is_found):
            angles[at] = network.angles(pictures[at], seen.points[at] * SIDE)
        return angles

    return read, []


def _people(
    measured: Measured, stills: FaceBatch, *, inverted: int, sampled: int
) -> tuple[Tensor, Tensor]:
    """Return latents of inverted stills, then of samples, and the stills' poses `[N, 2]`."""
    rows = np.linspace(0, len(stills) - 1, inverted + 2).astype(int)[1:-1].tolist()
    some = stills.part(rows)
    drawn = draw_identities(measured.bundle, sampled, seed=3)
    ws = torch.cat([measured.invert(some.images), drawn])
    return ws, torch.cat([some.pose_degrees, torch.zeros(sampled, 2)])


def controls_figures(
    measured: Measured, stills: FaceBatch, card_sheet: Path | None
) -> dict[str, Any]:
    """Return the locality of each control and the identity it keeps; writes sheets."""
    bundle = measured.bundle
    ws, _ = _people(measured, stills, inverted=4, sampled=4)
    sigma = torch.tensor(bundle.controls.sigma)
    push = torch.cat([torch.diag(sigma * -2), torch.diag(sigma * 2)])  # [64, 32]
    inside, outside, cosine = (np.zeros((len(ws), NUM_CONTROLS)) for _ in range(3))
    changes, tiles = [], []
    for person, latent in enumerate(ws):
        styles = bundle.generator.styles(latent[None])
        base = bundle.generator.synthesize(styles).clamp(-1, 1)
        moved = _pushed(bundle, styles, push)
        difference = moved - base
        masks = part_masks(bundle.faces.parse(base))
        for control, group in enumerate(GROUPS):
            both = difference[[control, control + NUM_CONTROLS]].abs().mean((0, 1))
            mask = masks[group][0, 0] > 0.5
            inside[person, control] = float(both[mask].mean()) if mask.any() else np.nan
            outside[person, control] = float(both[~mask].mean())
        looks = measured.identity(to_pixels(torch.cat([base, moved])))
        cosine[person] = (looks[1:] @ looks[0]).reshape(2, -1).min(0)
        changes.append((difference[NUM_CONTROLS:] - difference[:NUM_CONTROLS]).flatten(1))
        tiles.append(to_pixels(torch.cat([base, moved])))
    agreement = _agreement(torch.stack(changes))
    sheet_of_controls(measured.out / "controls.png", [tiles[p] for p in (0, 1, 4, 5, 6)])
    if card_sheet is not None:
        people = []
        for latent in draw_identities(bundle, 5, seed=11):
            styles = bundle.generator.styles(latent[None])
            base = bundle.generator.synthesize(styles)
            people.append(to_pixels(torch.cat([base, _pushed(bundle, styles, push)])))
        sheet_of_controls(card_sheet, people)
    rows: list[dict[str, Any]] = [
        {
            "name": bundle.controls.names[c],
            "group": GROUPS[c],
            "inside": round(float(np.nanmean(inside[:, c])), 4),
            "ratio": round(float(np.nanmean(inside[:, c]) / outside[:, c].mean()), 3),
            "identity": round(float(cosine[:, c].mean()), 4),
            "agreement": round(agreement[c], 3),
        }
        for c in range(NUM_CONTROLS)
    ]
    return {
        "people": len(ws),
        "rows": rows,
        "local": sum(row["ratio"] >= LOCAL_RATIO for row in rows),
        "keeping": sum(row["identity"] >= KEEPING_COSINE for row in rows),
        "least_identity": min(row["identity"] for row in rows),
    }


def _pushed(bundle: Bundle, styles: list[Tensor], push: Tensor) -> Tensor:
    """Return pictures `[64, 3, H, W]` in [-1, 1] of one person under each row of controls."""
    parts = []
    for part in push.split(BATCH):
        repeated = [style.expand(len(part), -1) for style in styles]
        parts.append(bundle.generator.synthesize(bundle.controls.apply(repeated, part)))
    return torch.cat(parts).clamp(-1, 1)


def _agreement(changes: Tensor) -> list[float]:
    """Return for changes `[people, controls, pixels]` the mean cosine between persons."""
    unit, people = torch.nn.functional.normalize(changes, dim=2), len(changes)
    total = unit.sum(0).square().sum(1)  # all pairs and each with itself
    mean: list[float] = ((total - people) / (people * (people - 1))).tolist()
    return mean


def sheet_of_controls(path: Path, people: list[NDArray[np.uint8]]) -> None:
    """Write a sheet: two rows a person, at -2 σ and +2 σ; the person itself, then 32 controls."""
    rows = []
    for pictures in people:
        small = [cv2.resize(p, (64, 64), interpolation=cv2.INTER_AREA) for p in pictures]
        base, moved = small[0], small[1:]
        rows += [[base, *moved[:NUM_CONTROLS]], [base, *moved[NUM_CONTROLS:]]]
    write_sheet(path, rows)


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
        take("speed", renderer_speed(bundle, threads=2, batch=8))
    take("refined", refined(measured, stills, count=options.refine or len(stills)))
    record["seconds"] = round(time.monotonic() - began)
    record["processor_seconds"] = round(time.process_time())
    record["targets"] = targets("mini", meters=list(record["pose"]["by"]))
    return record


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
