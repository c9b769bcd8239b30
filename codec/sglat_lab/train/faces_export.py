"""Enter trained face networks into a bundle: weights beside the others, records in its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from safetensors.torch import load_file

from sglat.bundles.manifest import PartRecord, write_part
from sglat.networks.embedded_analysis import KINDS, ROLES, load_weights

LICENCE = "research only: trained on pictures that are for research or non-commercial use"
SOURCES = {
    "detector": "trained from scratch by sglat_lab.train.faces_detector",
    "landmarks": "trained from scratch by sglat_lab.train.faces_landmarks on MediaPipe labels",
    "parsing": "trained from scratch by sglat_lab.train.faces_parsing",
    "identity": "trained by sglat_lab.train.faces_identity to agree with MobileFaceNet",
    "perceptual": "trained by sglat_lab.train.faces_perceptual to agree with LPIPS-squeeze",
}


def enter(weights: Path, bundle: Path, *, name: str, role: str) -> PartRecord:
    """Check one network's exported weights and write them into a bundle's folder."""
    tensors = load_file(weights / f"faces_{role}.safetensors")
    load_weights(KINDS[role](), tensors, role)
    return write_part(
        bundle, name=name, role=f"faces_{role}", kind=f"embedded_{role}", tensors=tensors,
        licence=LICENCE, source=SOURCES[role],
    )  # fmt: skip


def main(
    weights: Annotated[Path, typer.Option(help="Folder of faces_<role>.safetensors.")],
    bundle: Annotated[Path, typer.Option(help="The bundle's folder.")],
    name: str = "mini",
    roles: str = ",".join(ROLES),
) -> None:
    """Enter the networks named by `roles` (comma-separated)."""
    for role in roles.split(","):
        record = enter(weights, bundle, name=name, role=role)
        print(f"{record.role} {record.size_bytes} bytes, sha256 {record.sha256}")


if __name__ == "__main__":
    typer.run(main)
