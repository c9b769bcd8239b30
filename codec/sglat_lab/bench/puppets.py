"""Puppeteering: the motion of one clip with the identity of another, for all ordered pairs.

    python -m sglat_lab.bench.puppets --clips DIR --encoded DIR --bundle BUNDLE --out DIR

writes one JSON record, a table, and for each driver a sheet of its largest motions. Blendshapes and
iris points of MediaPipe stand in for OpenFace's action units and gaze.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.errors import UsageError
from sglat.files import write_atomically
from sglat.networks.face_points import BLINK_SHAPES, JAW_OPEN_SHAPE
from sglat_lab.bench import file_variants
from sglat_lab.measure.face_signals import compare, correlation, gaze
from sglat_lab.measure.judges import (
    Judges,
    embeddings,
    find_teachers,
    frechet_distance,
    identity_losses,
    load_judges,
)
from sglat_lab.measure.landmarks import Landmarker, MediaPipeLandmarker, Signals
from sglat_lab.report.plots import write_sheet

Pictures = NDArray[np.uint8]
MOVING_SHAPE: Final = 0.05  # standard deviation from which a driver moves jaw or lids
DIRECTIONS: Final = 24  # principal directions of the Fréchet distance: short clips have 78 frames
PUCKER_SHAPE: Final = 38
SMILE_SHAPES: Final = (44, 45)
FIGURES: Final = (
    "rho_au", "rho_gaze", "rho_pose", "r_jaw", "r_blink", "identity_loss", "jitter_pixels",
    "frechet",
)  # fmt: skip


@dataclass(kw_only=True)
class PuppetTools:
    """What pairs are measured with."""

    bundle: Bundle
    judges: Judges
    landmarker: Landmarker
    folder: Path
    """Of results."""


class PuppetClip:
    """A clip, its file, and measurements of its own frames.

    Args:
        video: source.
        encoded: the file made from it.
        tools: measuring networks.
    """

    def __init__(self, video: Path, encoded: Path, tools: PuppetTools) -> None:
        self.video, self.encoded, self.tools = video, encoded, tools

    @property
    def name(self) -> str:
        """The clip's name."""
        return self.video.stem

    @cached_property
    def parsed(self) -> file_variants.Parsed:
        """The file's header, motion and placement."""
        return file_variants.parse(self.encoded)

    @cached_property
    def source(self) -> Pictures:
        """Source crops, `[T, R, R, 3]`."""
        return file_variants.source_crops(self.video, self.parsed)

    @cached_property
    def signals(self) -> Signals:
        """Landmarks, blendshapes and pose of the source crops."""
        return self.tools.landmarker.signals(self.source)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Identity vectors of the source crops, `[T, 128]`."""
        return _vectors(self.tools, self.source)

    @cached_property
    def id_frame(self) -> int:
        """Number of the ID frame."""
        with open_reader(self.encoded) as reader:
            identity = reader.identity
        if identity is None or identity.id_frame is None:
            raise UsageError("no-identity", f"{self.encoded.name}: expected the number of its ID "
                             "frame, found none")  # fmt: skip
        return identity.id_frame

    @cached_property
    def shown(self) -> Pictures:
        """The clip's own file decoded, `[T, R, R, 3]`."""
        return file_variants.decoded(self.encoded, self.tools.bundle)[0]


def pair_pictures(driver: PuppetClip, puppet: PuppetClip) -> Pictures:
    """Return the puppet with the driver's motion, `[T, R, R, 3]`."""
    tools = driver.tools
    path = tools.folder / f"{driver.name}-on-{puppet.name}.sglat"
    file_variants.swapped(driver.encoded, puppet.encoded, path)
    return file_variants.decoded(path, tools.bundle)[0]


def pair_figures(driver: PuppetClip, puppet: PuppetClip, shown: Pictures) -> dict[str, Any]:
    """Return the figures of a swap and, with prefix `played_`, of the driver's video in its place.

    Args:
        driver: gives the motion.
        puppet: gives the identity.
        shown: the puppet with the driver's motion, `[T, R, R, 3]`.
    """
    tools, side = driver.tools, driver.parsed.header.resolution
    found: dict[str, Any] = {"driver": driver.name, "puppet": puppet.name, "frames": len(shown)}
    found |= motion_figures(tools.landmarker.signals(shown), driver.signals, side=side)
    identity = puppet.vectors[puppet.id_frame]
    for prefix, vectors in (("", _vectors(tools, shown)), ("played_", driver.vectors)):
        target = np.broadcast_to(identity, vectors.shape)
        found[f"{prefix}identity_loss"] = float(identity_losses(vectors, target).mean())
        found[f"{prefix}frechet"] = frechet_in_directions(vectors, puppet.vectors)
    return found


def motion_figures(shown: Signals, wanted: Signals, *, side: int) -> dict[str, float | None]:
    """Return correlations and jitter of a sequence against the driver's own frames.

    Jaw and blink are None where the driver hardly moves them.
    """
    general = compare(shown, wanted, side=side)
    both = np.flatnonzero(shown.is_found & wanted.is_found)
    a, b = shown.blendshapes[both], wanted.blendshapes[both]
    jaw, blink = [JAW_OPEN_SHAPE], list(BLINK_SHAPES)
    return {
        "rho_au": general["rho_au_proxy"],
        "rho_gaze": general["rho_gaze_proxy"],
        "rho_pose": general["rho_pose"],
        "r_jaw": correlation(a[:, jaw], b[:, jaw], MOVING_SHAPE),
        "r_blink": correlation(a[:, blink], b[:, blink], MOVING_SHAPE),
        "jitter_pixels": general["jitter_pixels"],
        "faces_lost": general["faces_lost"],
    }


def frechet_in_directions(
    shown: NDArray[np.floating], wanted: NDArray[np.floating], directions: int = DIRECTIONS
) -> float | None:
    """Return the Fréchet distance along the principal directions of the reference features.

    A covariance of full rank needs more frames than short clips have. Of the difference of the
    means, the part outside the directions is added in full.

    Args:
        shown: `[N, D]`.
        wanted: reference, `[M, D]`.
        directions: how many; None is returned where either set has no more samples.
    """
    if min(len(shown), len(wanted)) <= directions:
        return None
    mean = wanted.mean(0)
    _, _, rows = np.linalg.svd(wanted - mean, full_matrices=False)
    axes = rows[:directions].T
    gap = shown.mean(0) - mean
    outside = float(np.square(gap - axes @ (axes.T @ gap)).sum())
    return frechet_distance((shown - mean) @ axes, (wanted - mean) @ axes) + outside


def largest_motions(signals: Signals) -> dict[str, int]:
    """Return the frames with a driver's largest motions: name to frame number."""
    shapes, pose, eyes = signals.blendshapes, signals.pose, gaze(signals.points)
    left, right = (shapes[:, shape] for shape in BLINK_SHAPES)
    measures = {
        "widest mouth": shapes[:, JAW_OPEN_SHAPE],
        "pucker": shapes[:, PUCKER_SHAPE],
        "smile": shapes[:, list(SMILE_SHAPES)].sum(1),
        "blink": left + right,
        "wink": np.abs(left - right),
        "left": pose[:, 0],
        "right": -pose[:, 0],
        "up": pose[:, 1],
        "down": -pose[:, 1],
        "gaze left": eyes[:, 0],
        "gaze right": -eyes[:, 0],
    }
    return {name: int(np.nan_to_num(m, nan=-np.inf).argmax()) for name, m in measures.items()}


def table(records: Sequence[dict[str, Any]]) -> str:
    """Return the pairs and their mean as a Markdown table."""
    lines = ["| driver | puppet | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 2) + "|"]
    for record in [*records, {"driver": "mean", "puppet": "", **mean_figures(records)}]:
        values = (record.get(name) for name in FIGURES)
        cells = " | ".join("" if value is None else f"{value:.3f}" for value in values)
        lines.append(f"| {record['driver']} | {record['puppet']} | {cells} |")
    return "\n".join(lines) + "\n"


def mean_figures(records: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the mean of every figure over the pairs that have it."""
    names = sorted({name for record in records for name in record} - {"driver", "puppet"})
    means: dict[str, float | None] = {}
    for name in names:
        values = [record[name] for record in records if record.get(name) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def _vectors(tools: PuppetTools, pictures: Pictures) -> NDArray[np.float32]:
    assert tools.judges.identity is not None
    return embeddings(tools.judges.identity, pictures)


def measure(clips: Sequence[PuppetClip], *, drivers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Measure all ordered pairs, write each driver's sheet, and return one record per pair.

    A sheet has the driver's own frames in the first row, its own file in the second, and one
    puppet in each of the others.

    Args:
        clips: encoded with one bundle.
        drivers: names of those that give motion; all if empty.
    """
    records: list[dict[str, Any]] = []
    for driver, group in itertools.groupby(itertools.permutations(clips, 2), lambda pair: pair[0]):
        if drivers and driver.name not in drivers:
            continue
        motions = largest_motions(driver.signals)
        frames = list(motions.values())
        rows = [driver.source[frames], driver.shown[frames]]
        for _, puppet in group:
            pictures = pair_pictures(driver, puppet)
            records.append(pair_figures(driver, puppet, pictures))
            rows.append(pictures[frames])
        write_sheet(driver.tools.folder / f"motions-{driver.name}.png", rows, list(motions))
    return records


def main() -> None:
    """Parse the arguments, measure, and write the record and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("clips", "encoded", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--teachers", type=Path, help="folder of the measuring networks")
    parser.add_argument("--drivers", nargs="*", default=[], help="clip names; default: all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    judges = load_judges(find_teachers(args.teachers))
    for network, metric in ((judges.landmarker, "signals"), (judges.identity, "L_ID")):
        if network is None:
            raise SystemExit(f"needs {judges.missing[metric]}")
    assert judges.landmarker is not None
    tools = PuppetTools(
        bundle=load_bundle(args.bundle), judges=judges,
        landmarker=MediaPipeLandmarker(judges.landmarker), folder=args.out,
    )  # fmt: skip
    pairs = [(v, args.encoded / f"{v.stem}.sglat") for v in sorted(args.clips.glob("*.mp4"))]
    clips = [PuppetClip(video, encoded, tools) for video, encoded in pairs if encoded.exists()]
    records = measure(clips, drivers=args.drivers)
    tools.landmarker.close()
    result = {"pairs": records, "mean": mean_figures(records)}
    write_atomically(args.out / "puppets.json", json.dumps(result, indent=1) + "\n")
    write_atomically(args.out / "puppets.md", table(records))
    print(table(records), end="")


if __name__ == "__main__":
    main()
