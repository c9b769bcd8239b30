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
from typing import Annotated, Any, Final

import torch
import typer

from sglat.bundles.manifest import MANIFEST_NAME, read_manifest, read_tensors
from sglat.files import write_atomically
from sglat.networks.embedded_analysis import ROLES, EmbeddedAnalysis
from sglat_lab.bench import faces_measures as measures
from sglat_lab.bench.faces_pictures import draw_all
from sglat_lab.report.document import Record, provenance
from sglat_lab.report.pages_networks import faces_page
from sglat_lab.train.data import prepare

PARTS: Final = "detection,landmarks,validation,parsing,identity,perceptual,speed,pictures"


def rounded(value: Any) -> Any:
    """Round every number of a nest of dictionaries to four places."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def load_faces(weights: Path) -> EmbeddedAnalysis:
    """Return the networks in a folder, their check sums compared where there is a manifest."""
    from safetensors.torch import load_file

    if (weights / MANIFEST_NAME).exists():
        records = read_manifest(weights).parts
        stored = {role: read_tensors(weights, records[f"faces_{role}"]) for role in ROLES}
    else:
        stored = {role: load_file(weights / f"faces_{role}.safetensors") for role in ROLES}
    return EmbeddedAnalysis.from_tensors(stored)


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
    """Measure the parts asked for, keep earlier figures of the others, print all as JSON."""
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
    text = json.dumps(record, indent=1)
    write_atomically(path, text + "\n")
    write_atomically(output / "faces.md", faces_page(record))
    print(text)
    if "pictures" in wanted:
        draw_all(networks, clips, output)


if __name__ == "__main__":
    typer.run(main)
