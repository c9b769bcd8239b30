"""What the presets cost and give: a person enrolled on half a clip, the other half encoded.

    python -m sglat_lab.bench.presets CLIPS OUT [CLIP ...] [--presets live default]

enrols each clip's first half quickly and by default, encodes the second half against it by every
preset, and compares with the preset `best` against the default identity. Results are kept in OUT,
so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import sglat
from sglat.bitstream.reader import open_reader
from sglat.bundles.bundle import load_bundle
from sglat.encoder.config import PRESETS, EncodeConfig, PresetName
from sglat.encoder.crops import crop_picture
from sglat.files import write_atomically
from sglat.media.reader import Clip, VideoReader, exact_seconds
from sglat.networks.faces import FaceBox
from sglat_lab.bench import file_variants
from sglat_lab.bench.harness import Cache
from sglat_lab.bench.mini import Measured
from sglat_lab.measure.face_signals import jitter_pixels
from sglat_lab.measure.judges import find_teachers, load_judges
from sglat_lab.report.pages import average, part, provenance, targets

Pictures = NDArray[np.uint8]
FACE: Final = FaceBox(left=0.2, top=0.2, right=0.8, bottom=0.95, score=1.0)  # in crop units
Figures = dict[str, Any]
ENROLMENTS: Final = ("fast", "default")
FIGURES: Final = (
    "seconds", "processor", "bytes", "frames_per_second", "psnr", "perceptual", "identity_loss",
    "jitter", "psnr_lost", "identity_loss_more",
)  # fmt: skip


def source_crops(clip: Path, path: Path, start_seconds: float, side: int) -> Pictures:
    """Return the camera's crops `[T, R, R, 3]` where a file of the clip's rest has its face."""
    with open_reader(path) as reader:
        groups = [g.placement.dequantize() for g in reader.groups() if g.placement is not None]
    placement = np.concatenate(groups)
    with VideoReader(Clip(path=clip, start_seconds=exact_seconds(start_seconds))) as video:
        rows = zip(video, placement, strict=False)
        return np.stack([crop_picture(frame.picture, row, side) for frame, row in rows])


def jitter(measured: Measured, pictures: Pictures) -> float | None:
    """Return the jitter of crops in pixels, by the bundle's landmarks."""
    side = pictures.shape[1]
    box = replace(
        FACE, left=side * FACE.left, top=side * FACE.top, right=side * FACE.right,
        bottom=side * FACE.bottom,
    )  # fmt: skip
    faces = measured.bundle.faces
    points = [faces.landmarks(np.ascontiguousarray(one), box).points / side for one in pictures]
    return jitter_pixels(np.stack(points).astype(np.float32), side)


def figures(measured: Measured, clip: Path, path: Path, start_seconds: float) -> dict[str, Any]:
    """Return the quality of a file of a clip's rest against the camera."""
    shown, held = file_variants.decoded(path, measured.bundle)
    source = source_crops(clip, path, start_seconds, measured.bundle.resolution)
    shown, source = shown[~held], source[~held]
    found = measured.compare(shown, source)
    mine, own = jitter(measured, shown), jitter(measured, source)
    return {
        "psnr": found["psnr"], "perceptual": found["perceptual"],
        "identity_loss": 1 - found["identity"],
        "jitter": None if mine is None or not own else mine / own,
    }  # fmt: skip


def halves(clip: Path) -> float:
    """Return the second where the second half of a clip begins."""
    with VideoReader(clip) as video:
        return float(video.info.expected_frames // 2 / video.info.frame_rate)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what work returns, its seconds, and the processor seconds of all threads."""
    began, used = time.monotonic(), time.process_time()
    found = work()
    return found, time.monotonic() - began, time.process_time() - used


def enrolled(measured: Measured, clip: Path, preset: PresetName, config: EncodeConfig) -> Figures:
    """Enrol a person on the first half of a clip; return the cost."""
    me = measured.out / f"{clip.stem}-{preset}-me.sglat"
    config = replace(config, preset=preset, force=True, end_seconds=halves(clip))
    _, seconds, processor = timed(lambda: sglat.enrol([clip], me, config))
    return {"seconds": seconds, "processor": processor, "bytes": me.stat().st_size}


def followed(
    measured: Measured, clip: Path, preset: PresetName, config: EncodeConfig, enrolment: PresetName
) -> Figures:
    """Encode the second half against a person of the first; return cost and quality."""
    me = measured.out / f"{clip.stem}-{enrolment}-me.sglat"
    path = measured.out / f"{clip.stem}-{enrolment}-{preset}.sglat"
    start = halves(clip)
    rest = EncodeConfig(
        preset=preset, start_seconds=start, self_check=False, threads=config.threads,
        seed=config.seed, force=True,
    )  # fmt: skip
    found, seconds, processor = timed(lambda: sglat.encode(clip, path, rest, identity=me))
    return {
        "frames": found.frames, "seconds": seconds, "processor": processor,
        "frames_per_second": found.frames / seconds,
    } | figures(measured, clip, path, start)  # fmt: skip


def record_of(clips: dict[str, dict[str, Any]], **facts: Any) -> dict[str, Any]:
    """Return the record of all clips, with means by enrolment and by preset.

    Args:
        clips: of each clip, `enrol <preset>` with the cost of enrolling and `<enrolment> <preset>`
            with cost and quality of encoding.
    """
    for clip in clips.values():
        most = clip.get("default best")
        for name, found in clip.items():
            if most is not None and not name.startswith("enrol"):
                found["psnr_lost"] = most["psnr"] - found["psnr"]
                found["identity_loss_more"] = found["identity_loss"] - most["identity_loss"]
    names = list(dict.fromkeys(name for clip in clips.values() for name in clip))
    rows = {name: [clip[name] for clip in clips.values() if name in clip] for name in names}
    return {
        "clips": clips,
        "mean": {
            name: {key: average(found, key) for key in FIGURES if key in found[0]}
            for name, found in rows.items()
        },
        "targets": targets("presets"),
        **facts,
    }


def main() -> None:
    """Run over all clips."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="clips by name; default: all")
    parser.add_argument("--enrolments", nargs="+", choices=list(PRESETS), default=ENROLMENTS)
    parser.add_argument("--presets", nargs="*", choices=list(PRESETS), default=list(PRESETS))
    parser.add_argument("--resolution", type=int, default=128, help="of the identity")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--teachers", type=Path, help="folder of the measuring networks")
    parser.add_argument("--heads", type=Path, help="squeeze.pth of the lpips package")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    judges = load_judges(find_teachers(args.teachers), heads=args.heads)
    measured = Measured(bundle=load_bundle("mini"), judges=judges, out=args.out)
    config = EncodeConfig(resolution=args.resolution, threads=args.threads)
    run, kept = provenance("python -m sglat_lab.bench.presets"), Cache(args.out)
    clips: dict[str, dict[str, Any]] = {}
    for clip in sorted(args.clips.glob("*.mp4")):
        if args.names and clip.stem not in args.names:
            continue
        found = clips.setdefault(clip.stem, {})
        for name in args.enrolments:
            make = partial(enrolled, measured, clip, name, config)
            found[f"enrol {name}"] = kept.record(f"{clip.stem}-enrol-{name}", make)
        for name, preset in product(args.enrolments, args.presets):
            follow = partial(followed, measured, clip, preset, config, name)
            found[f"{name} {preset}"] = kept.record(f"{clip.stem}-{name}-{preset}", follow)
        print(clip.stem, json.dumps(found), flush=True)
    record = record_of(clips, runs=[run])
    write_atomically(args.out / "presets.json", json.dumps(record, indent=1))
    print(part("presets", **record))


if __name__ == "__main__":
    main()
