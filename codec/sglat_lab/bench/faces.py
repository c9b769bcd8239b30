"""Measure the embedded face networks: detection, landmarks, parsing, identity, perceptual, speed.

    python -m sglat_lab.bench.faces --weights DIR --shared DIR --cache DIR --output DIR

Writes `faces.json` and `faces.md` and, unless told not to, one picture a network into the output
folder; prints the figures. `--parts fooled` measures how far tuning a generator against the
identity and perceptual networks fools them (`--faces`, `--steps`). The clips and the packs'
validation rows have never been trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from sglat.bundles.manifest import MANIFEST_NAME, fill_network, read_manifest, read_tensors
from sglat.networks.embedded_analysis import KINDS, ROLES, EmbeddedAnalysis
from sglat.networks.pixels import from_pixels
from sglat_lab.bench import faces_measures as measures
from sglat_lab.bench.faces_measures import Clip
from sglat_lab.report.pages import Record, provenance, write_page
from sglat_lab.report.plots import write_sheet
from sglat_lab.train.data import prepare
from sglat_lab.train.faces_perceptual import DISTORTIONS

Picture = NDArray[np.uint8]
TILE = 320
GREEN, RED, WHITE = (0, 255, 0), (255, 60, 60), (255, 255, 255)


def draw_all(networks: EmbeddedAnalysis, clips: list[Clip], folder: Path) -> None:
    """Write one PNG a network into `folder`."""
    drawings = {
        "detector": [_detections(clip, t) for clip in clips for t in _moments(clip, 3)],
        "landmarks": [_landmarks(clip, t) for clip in clips for t in _moments(clip, 4)],
        "parsing": [_parsing(networks, clip, t) for clip in clips for t in _moments(clip, 3)],
        "identity": [_identity(networks, clips)],
        "perceptual": [_perceptual(networks, clip) for clip in clips],
    }
    columns = {"detector": 6, "landmarks": 4, "parsing": 6, "identity": 1, "perceptual": 1}
    for name, tiles in drawings.items():
        wide = columns[name]
        rows = [tiles[at : at + wide] for at in range(0, len(tiles), wide)]
        write_sheet(folder / f"{name}.png", rows)


def _moments(clip: Clip, count: int) -> list[int]:
    return [int(t) for t in np.linspace(0, len(clip.frames) - 1, count + 2)[1:-1]]


def _detections(clip: Clip, moment: int) -> Picture:
    frame, box = clip.frames[moment].copy(), clip.boxes[moment]
    points = clip.points[moment]
    low, high = points.min(0).astype(int), points.max(0).astype(int)
    cv2.rectangle(frame, tuple(map(int, low)), tuple(map(int, high)), RED, 2)
    if box is not None:
        corners = [int(v) for v in (box.left, box.top, box.right, box.bottom)]
        cv2.rectangle(frame, tuple(corners[:2]), tuple(corners[2:]), GREEN, 2)
        place = (corners[0], max(14, corners[1] - 5))
        cv2.putText(frame, f"{box.score:.2f}", place, 0, 0.6, GREEN, 2)
    return _tile(frame)


def _landmarks(clip: Clip, moment: int) -> Picture:
    frame, track = clip.frames[moment], clip.tracks[moment]
    truth = clip.points[moment]
    low, high = truth.min(0), truth.max(0)
    side, middle = 1.25 * float((high - low).max()), (low + high) / 2
    scale = 1.5 * TILE / side
    matrix = np.array(((scale, 0, 0), (0, scale, 0)))
    matrix[:, 2] = 0.75 * TILE - scale * middle
    size = (int(1.5 * TILE), int(1.5 * TILE))
    view = np.asarray(cv2.warpAffine(frame, matrix, size), np.uint8)
    for points, colour in ((truth, RED), (track.points, GREEN)):
        for x, y in points @ matrix[:, :2].T + matrix[:, 2]:
            cv2.circle(view, (int(x), int(y)), 1, colour, -1)
    left, right = track.eye_openness
    yaw, pitch, roll = track.yaw_degrees, track.pitch_degrees, track.roll_degrees
    lines = (
        f"yaw {yaw:+.0f} pitch {pitch:+.0f} roll {roll:+.0f}",
        f"eyes {left:.2f} {right:.2f}  score {track.score:.2f}",
    )
    for number, line in enumerate(lines):
        cv2.putText(view, line, (6, 20 + 20 * number), 0, 0.5, WHITE, 1, cv2.LINE_AA)
    return view


def _parsing(networks: EmbeddedAnalysis, clip: Clip, moment: int) -> Picture:
    crop = clip.crop(moment)
    classes = networks.parse(from_pixels(crop[None]))[0].argmax(0).numpy()
    painted = _palette()[classes] // 2 + crop // 2
    both = np.concatenate([crop, painted.astype(np.uint8)], axis=0)
    return np.asarray(
        cv2.resize(both, (TILE // 2, TILE), interpolation=cv2.INTER_NEAREST), np.uint8
    )


def _palette() -> Picture:
    hues = (np.arange(19) * 37 % 180).astype(np.uint8)
    table = np.stack([hues, np.full(19, 210, np.uint8), np.full(19, 255, np.uint8)], 1)
    colours = np.array(cv2.cvtColor(table[None], cv2.COLOR_HSV2RGB)[0], np.uint8)
    colours[0] = 0
    return colours


def _identity(networks: EmbeddedAnalysis, clips: list[Clip]) -> Picture:
    """Draw cosines between three frames of every clip: bright blocks on the diagonal are right."""
    crops = [c.crop(t) for c in clips for t in _moments(c, 3)]
    with torch.inference_mode():
        vectors = networks.embed(from_pixels(np.stack(crops))).numpy()
    cosine = vectors @ vectors.T
    cell = 64
    count = len(crops)
    sheet = np.zeros(((count + 1) * cell, (count + 1) * cell, 3), np.uint8)
    for i, crop in enumerate(crops):
        small = cv2.resize(crop, (cell, cell), interpolation=cv2.INTER_AREA)
        sheet[:cell, (i + 1) * cell : (i + 2) * cell] = small
        sheet[(i + 1) * cell : (i + 2) * cell, :cell] = small
        for j in range(count):
            top, left = (i + 1) * cell, (j + 1) * cell
            value = float(cosine[i, j])
            sheet[top : top + cell, left : left + cell] = int(255 * np.clip(value, 0, 1))
            colour = (255, 80, 80) if value < 0.5 else (0, 90, 0)
            cv2.putText(sheet, f"{value:.2f}", (left + 8, top + 38), 0, 0.5, colour, 1)
    return sheet


def _perceptual(networks: EmbeddedAnalysis, clip: Clip) -> Picture:
    """Draw a crop and each distortion of it, weak above strong, with the distance."""
    crop = clip.crop(len(clip.frames) // 2)
    rows = []
    for strength in (0.2, 0.7):
        tiles = [crop]
        for distort in DISTORTIONS.values():
            changed = np.ascontiguousarray(distort(crop, strength, np.random.default_rng(3)))
            pair = from_pixels(np.stack([crop, changed]))
            with torch.inference_mode():
                distance = float(networks.perceptual(pair[:1], pair[1:]))
            cv2.putText(changed, f"{distance:.3f}", (4, 122), 0, 0.5, WHITE, 1, cv2.LINE_AA)
            tiles.append(changed)
        rows.append(np.concatenate(tiles, 1))
    return np.concatenate(rows)


def _tile(frame: Picture) -> Picture:
    scale = TILE / max(frame.shape[:2])
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile


PARTS: Final = "detection,landmarks,validation,parsing,identity,perceptual,speed,pictures"


def rounded(value: Record) -> Record:
    """Return plain values with every number rounded to four places."""
    found: Record = json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 4))
    return found


def load_faces(weights: Path) -> EmbeddedAnalysis:
    """Return the networks in a folder, their check sums compared where there is a manifest."""
    from safetensors.torch import load_file

    if (weights / MANIFEST_NAME).exists():
        records = read_manifest(weights).parts
        stored = {role: read_tensors(weights, records[f"faces_{role}"]) for role in ROLES}
    else:
        stored = {role: load_file(weights / f"faces_{role}.safetensors") for role in ROLES}
    networks = {
        role: fill_network(kind(), stored[role], place=f"faces_{role}")
        for role, kind in KINDS.items()
    }
    return EmbeddedAnalysis(networks=networks)


def main(
    weights: Annotated[Path, typer.Option(help="Folder of faces_<role>.safetensors.")],
    shared: Annotated[Path, typer.Option(help="Folder with clips, data and teachers.")],
    cache: Annotated[Path, typer.Option(help="Decoded packs and the clips' labels are kept here.")],
    output: Annotated[Path, typer.Option(help="Figures go here.")],
    heads: Annotated[Path | None, typer.Option(help="LPIPS v0.1 heads for SqueezeNet.")] = None,
    generated: Annotated[Path | None, typer.Option(help="npz of generator outputs.")] = None,
    parts: Annotated[str, typer.Option(help="What to measure, comma-separated.")] = PARTS,
    threads: int = 2,
    count: Annotated[int, typer.Option("--faces", help="Stills of the part fooled.")] = 8,
    steps: Annotated[int, typer.Option(help="Of tuning, of the part fooled.")] = 40,
) -> None:
    """Measure some parts, keep earlier figures of the others, print all as JSON."""
    torch.set_num_threads(threads)
    wanted = set(parts.split(","))
    run = provenance("python -m sglat_lab.bench.faces", what=parts)
    networks = load_faces(weights)
    faces = prepare(shared / "data", cache, 128)
    teachers = shared / "teachers"
    clips: list[measures.Clip] = []
    if wanted & {"detection", "landmarks", "speed", "pictures"}:
        every = bool(wanted & {"detection", "pictures"})
        for path in sorted((shared / "clips").glob("*.mp4")):
            clips.append(measures.analyse(networks, path, teachers, cache / "clips", every=every))
    probes: dict[str, Callable[[], Record]] = {
        "detection": lambda: measures.detection(networks, clips),
        "landmarks": lambda: measures.landmark_figures(clips),
        "validation": lambda: measures.landmark_validation(networks, faces),
        "parsing": lambda: measures.parsing_figures(networks, shared / "data"),
        "identity": lambda: measures.identity_figures(networks, faces, teachers),
        "speed": lambda: measures.speed_figures(networks, clips[0], threads),
    }
    if heads is not None:
        probes["perceptual"] = lambda: measures.perceptual_figures(
            networks, faces, teachers, heads, generated
        )
        probes["fooled"] = lambda: measures.fooled_figures(
            networks, faces, teachers, heads, count=count, steps=steps
        )
    output.mkdir(parents=True, exist_ok=True)
    path = output / "faces.json"
    record: Record = json.loads(path.read_text()) if path.exists() else {"runs": []}
    record |= {name: rounded(call()) for name, call in probes.items() if name in wanted}
    record["runs"] = [one for one in record["runs"] if one["what"] != parts] + [run]
    write_page(path, record)
    print(json.dumps(record, indent=1))
    if "pictures" in wanted:
        draw_all(networks, clips, output)


if __name__ == "__main__":
    typer.run(main)
