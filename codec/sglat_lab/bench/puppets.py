"""Puppeteering: the motion of one clip with the identity of another, for all ordered pairs.

    python -m sglat_lab.bench.puppets --clips DIR --encoded DIR --bundle BUNDLE --out DIR

writes one JSON record, a table, and for each driver a sheet of its largest motions. Blendshapes and
iris points of MediaPipe stand in for OpenFace's action units and gaze.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import sglat
from sglat.bitstream.reader import load_identity
from sglat.errors import UsageError
from sglat.files import write_atomically
from sglat.networks.face_points import BLINK_SHAPES, JAW_OPEN_SHAPE
from sglat_lab.bench import file_variants
from sglat_lab.bench.clip_bench import ClipBench
from sglat_lab.bench.encodes import ClipFiles
from sglat_lab.bench.harness import ToolConfig
from sglat_lab.bench.probes import Tools
from sglat_lab.measure.face_signals import compare, correlation, gaze
from sglat_lab.measure.judges import embeddings, frechet_distance, identity_losses
from sglat_lab.measure.landmarks import Signals
from sglat_lab.report.pages import average, grid, number
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
class PuppetClip(ClipBench):
    """A clip, its file, and measurements of all its own frames."""

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """Identity vectors of the source crops, `[T, 128]`."""
        return self.looks(self.source)

    def looks(self, pictures: Pictures) -> NDArray[np.float32]:
        """Return the identity vectors `[N, 128]` of crops."""
        assert self.judges.identity is not None
        return embeddings(self.judges.identity, pictures)

    @cached_property
    def id_frame(self) -> int:
        """Number of the ID frame."""
        found = load_identity(self.encoded).id_frame
        if found is None:
            raise UsageError("no-identity", f"{self.encoded.name}: expected the number of its ID "
                             "frame, found none")  # fmt: skip
        return found


def pair_pictures(driver: PuppetClip, puppet: PuppetClip, out: Path) -> Pictures:
    """Return the puppet with the driver's motion, `[T, R, R, 3]`; its file goes to a folder."""
    path = out / f"{driver.name}-on-{puppet.name}.sglat"
    sglat.swap(motion=driver.encoded, identity=puppet.encoded, out=path, force=True)
    return file_variants.decoded(path, driver.bundle)[0]


def pair_figures(driver: PuppetClip, puppet: PuppetClip, shown: Pictures) -> dict[str, Any]:
    """Return the figures of a swap and, with prefix `played_`, of the driver's video in its place.

    Args:
        driver: gives the motion.
        puppet: gives the identity.
        shown: the puppet with the driver's motion, `[T, R, R, 3]`.
    """
    assert driver.landmarker is not None
    side = driver.bundle.resolution
    found: dict[str, Any] = {"driver": driver.name, "puppet": puppet.name, "frames": len(shown)}
    found |= motion_figures(driver.landmarker.signals(shown), driver.signals, side=side)
    identity = puppet.vectors[puppet.id_frame]
    for prefix, vectors in (("", driver.looks(shown)), ("played_", driver.vectors)):
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
    shown: NDArray[np.floating], wanted: NDArray[np.floating]
) -> float | None:
    """Return the Fréchet distance along the principal directions of the reference features.

    A covariance of full rank needs more frames than short clips have. Of the difference of the
    means, the part outside the directions is added in full.

    Args:
        shown: `[N, D]`.
        wanted: reference, `[M, D]`.

    Returns:
        None where either set has no more samples than there are directions.
    """
    if min(len(shown), len(wanted)) <= DIRECTIONS:
        return None
    mean = wanted.mean(0)
    _, _, rows = np.linalg.svd(wanted - mean, full_matrices=False)
    axes = rows[:DIRECTIONS].T
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
    rows = [*records, {"driver": "mean", "puppet": "", **mean_figures(records)}]
    return grid(
        ["driver", "puppet", *FIGURES],
        [[r["driver"], r["puppet"], *(number(r.get(key), 3) for key in FIGURES)] for r in rows],
    )


def mean_figures(records: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the mean of every figure over the pairs that have it."""
    names = sorted({name for record in records for name in record} - {"driver", "puppet"})
    return {name: average(records, name) for name in names}


def measure(
    clips: Sequence[PuppetClip], out: Path, *, drivers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Measure all ordered pairs, write each driver's sheet, and return one record per pair.

    A sheet has the driver's own frames in the first row, its own file in the second, and one
    puppet in each of the others.

    Args:
        clips: encoded with one bundle.
        out: folder of sheets and files.
        drivers: names of those that give motion; all if empty.
    """
    records: list[dict[str, Any]] = []
    for driver in clips:
        if drivers and driver.name not in drivers:
            continue
        motions = largest_motions(driver.signals)
        frames = list(motions.values())
        own, _ = file_variants.decoded(driver.encoded, driver.bundle)
        rows = [driver.source[frames], own[frames]]
        for puppet in (clip for clip in clips if clip is not driver):
            pictures = pair_pictures(driver, puppet, out)
            records.append(pair_figures(driver, puppet, pictures))
            rows.append(pictures[frames])
        write_sheet(out / f"motions-{driver.name}.png", rows, list(motions))
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
    pairs = [(v, args.encoded / f"{v.stem}.sglat") for v in sorted(args.clips.glob("*.mp4"))]
    files = [ClipFiles(video=video, encoded=path) for video, path in pairs if path.exists()]
    config = ToolConfig(out=args.out, bundle=args.bundle, teachers=args.teachers)
    with Tools(config) as tools:
        judges = tools.judges
        for network, metric in ((judges.landmarker, "signals"), (judges.identity, "L_ID")):
            if network is None:
                raise SystemExit(f"needs {judges.missing[metric]}")
        clips = [tools.clip_as(one, PuppetClip) for one in files]
        records = measure(clips, args.out, drivers=args.drivers)
    result = {"pairs": records, "mean": mean_figures(records)}
    write_atomically(args.out / "puppets.json", json.dumps(result, indent=1) + "\n")
    write_atomically(args.out / "puppets.md", table(records) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()
