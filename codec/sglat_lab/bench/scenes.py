"""Two people in one video: encoded together, composed back, and compared with single encodings.

    python -m sglat_lab.bench.scenes FIRST SECOND OUT [--steps N]

Scenes are made of two clips (`scene_clips`), so that who is where is known in every frame. Finished
parts are kept in OUT, so an interrupted run continues. Writes OUT/scenes.json and OUT/scenes.md,
and a sheet of each scene: source above, composed below.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from sglat.bitstream.scene import read_scene
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.decode import Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.decoder.paint import FaceTrack, read_track
from sglat.decoder.placement import SIZE
from sglat.decoder.scene import SceneDecoder
from sglat.encoder.config import EncodeConfig
from sglat.encoder.crops import crop_picture
from sglat.encoder.encode import encode
from sglat.encoder.everyone import encode_all
from sglat.encoder.people import face_vector
from sglat.files import open_input
from sglat.media.reader import VideoReader
from sglat.networks.face_points import FACE_OVAL
from sglat.networks.pixels import from_pixels
from sglat_lab.bench.scene_clips import (
    SCENES,
    SIDE,
    Card,
    Scene,
    square_frames,
    write_scene,
    write_single,
)
from sglat_lab.report.pages import Record, provenance, write_page
from sglat_lab.report.plots import write_sheet

Picture = NDArray[np.uint8]
CRF: Final = 10
VISIBLE: Final = 0.98  # share of the landmarks that are uncovered and within the frame
PART: Final = 0.6  # share from which a face is there at all
AROUND: Final = 1.5  # size of what is left out around a face, where ghosts are looked for
BLOCK: Final = 16  # pixels
SHEET_FRAMES: Final = 6
SHEET_SCALE: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One of the two people in the frames of their card."""

    points: NDArray[np.float32]
    """Landmarks in pixels of the card, `[T, 478, 2]`."""
    vectors: NDArray[np.float32]
    """Identity vectors, `[T, D]`."""


def truth_of(clip: Path, bundle: Bundle, frames: int) -> Truth:
    """Return who is in the first frames of a clip's card."""
    points, vectors, last = [], [], None
    for picture in islice(square_frames(clip), frames):
        box = bundle.faces.detect(picture)[0] if last is None else None
        last = bundle.faces.landmarks(picture, box or _box(last), previous=last)
        points.append(last.points)
        vectors.append(
            face_vector(bundle.faces, picture, last.points, bundle.resolution, bundle.device)
        )
    return Truth(points=np.stack(points), vectors=np.stack(vectors))


def _box(found: Any) -> Any:
    from sglat.encoder.follow import box_of_points

    return box_of_points(found.points, 1.0)


def shares(scene: Scene, frame: int, truths: Sequence[Truth], size: tuple[int, int]) -> list[float]:
    """Return which share of each person's landmarks is to be seen in a frame."""
    cards = scene.at(frame)
    found = []
    for which, (card, truth) in enumerate(zip(cards, truths, strict=True)):
        if card is None:
            found.append(0.0)
            continue
        points = truth.points[frame] + np.array(card)
        seen = ((points >= 0) & (points < np.array(size))).all(axis=1)
        front = cards[1]
        if which == 0 and front is not None:
            seen &= ~((points >= front) & (points < np.array(front) + SIDE)).all(axis=1)
        found.append(float(seen.mean()))
    return found


def place_errors(
    scene: Scene, track: FaceTrack, own: int, truths: Sequence[Truth], size: tuple[int, int]
) -> dict[str, int]:
    """Return in how many frames a file lies on the other person, and in how many it does not have a
    person who is wholly visible."""
    other = missed = 0
    for frame in range(scene.frames):
        seen = shares(scene, frame, truths, size)
        if track.is_held[frame]:
            missed += int(seen[own] >= VISIBLE)
            continue
        centre, side = track.placement[frame, :2], track.placement[frame, SIZE]
        away = [
            float(np.hypot(*(truth.points[frame].mean(axis=0) + np.array(card) - centre))) / side
            if card is not None and seen[at] >= PART
            else np.inf
            for at, (card, truth) in enumerate(zip(scene.at(frame), truths, strict=True))
        ]
        other += int(away[1 - own] < away[own])
    return {"frames_on_the_other": other, "visible_frames_missed": missed}


def likeness(
    pictures: Iterator[Picture], track: FaceTrack, own: int, truths: Sequence[Truth], bundle: Bundle
) -> dict[str, Any]:
    """Return identity cosines of the face at a file's place in composed frames, to its own person
    and to the other, and how often the other's is the larger."""
    cosines = []
    for frame, picture in enumerate(pictures):
        if track.is_held[frame]:
            continue
        crop = crop_picture(picture, track.placement[frame], bundle.resolution)
        with torch.no_grad():
            vector = bundle.faces.embed(from_pixels(crop[None]).to(bundle.device))[0].cpu().numpy()
        cosines.append([float((truths[at].vectors @ vector).max()) for at in (own, 1 - own)])
    values = np.array(cosines)
    return {
        "frames": len(values),
        "exchanged": int((values[:, 1] > values[:, 0]).sum()),
        "own": round(float(values[:, 0].mean()), 3),
        "least_own": round(float(values[:, 0].min()), 3),
        "other": round(float(values[:, 1].mean()), 3),
        "most_other": round(float(values[:, 1].max()), 3),
    }


def face_psnr(
    shown: Sequence[Picture], source: Sequence[Picture], truth: Truth, offsets: Sequence[Card]
) -> float:
    """Return PSNR in dB over the pixels of a face's oval in all frames."""
    squares, count = 0.0, 0
    for frame, offset in enumerate(offsets):
        mask = oval(truth.points[frame], offset, shown[frame].shape[:2]) > 0
        error = shown[frame][mask].astype(np.float64) - source[frame][mask]
        squares, count = squares + float(np.square(error).sum()), count + error.size
    return float(10 * np.log10(255**2 / (squares / count)))


def oval(
    points: NDArray[np.float32], offset: Card, shape: tuple[int, ...], scale: float = 1.0
) -> Picture:
    """Return the mask `[H, W]` of a face's oval, larger by a scale."""
    mask = np.zeros(shape[:2], np.uint8)
    if offset is not None:
        outline = points[list(FACE_OVAL)] + np.array(offset)
        middle = outline.mean(axis=0)
        outline = middle + scale * (outline - middle)
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(outline).astype(np.int32)), 1)
    return mask


def ghosts(
    scene: Scene, shown: Sequence[Picture], source: Sequence[Picture], truths: Sequence[Truth]
) -> dict[str, float]:
    """Return the difference outside of all faces, in levels: mean, and of the worst block."""
    means, worst = [], 0.0
    for frame in range(scene.frames):
        mask = np.zeros(source[frame].shape[:2], np.uint8)
        for card, truth in zip(scene.at(frame), truths, strict=True):
            mask |= oval(truth.points[frame], card, mask.shape, AROUND)
        error = np.abs(shown[frame].astype(np.float32) - source[frame]).mean(axis=2)
        error[mask > 0] = 0
        means.append(float(error.sum() / (mask == 0).sum()))
        height, width = (n // BLOCK * BLOCK for n in error.shape)
        blocks = error[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        worst = max(worst, float(blocks.mean(axis=(1, 3)).max()))
    return {"mean": round(float(np.mean(means)), 3), "worst_block": round(worst, 2)}


def frames_of(path: Path) -> list[Picture]:
    """Return all frames of a short video."""
    with VideoReader(path) as reader:
        return [frame.picture for frame in reader]


def write_onto(source: Path, target: Path, onto: Path) -> None:
    """Compose a file or scene onto its video, without marks, for measuring."""
    output = OutputConfig(
        path=target, onto=onto, encoder="libx264", crf=CRF, has_watermark=False, label="",
        force=True,
    )  # fmt: skip
    with ExitStack() as stack:
        decoder: Decoder
        if source.is_dir():
            decoder = SceneDecoder(source, stack)
        else:
            decoder = Decoder(stack.enter_context(open_input(source)))
        write_decoded(decoder, output)


def measure_scene(
    scene: Scene, clips: Sequence[Path], truths: Sequence[Truth], out: Path, config: EncodeConfig,
    bundle: Bundle,
) -> Record:  # fmt: skip
    """Make, encode and compose a scene, and return its figures."""
    video, folder, composed = (out / f"{scene.name}{end}" for end in (".mp4", "", "-onto.mp4"))
    if not video.exists():
        write_scene(scene, clips[0], clips[1], video)
    if not folder.exists():
        encode_all(video, folder, config)
    write_onto(folder, composed, video)
    source, shown = frames_of(video), frames_of(composed)
    size = (source[0].shape[1], source[0].shape[0])
    found, _ = read_scene(folder)
    tracks = [read_track(folder / person.file) for person in found.people]
    people = {}
    for person, track in zip(found.people, tracks, strict=True):
        own = _owner(scene, track, truths, size)
        people[f"person {own + 1}"] = {
            "file_bytes": person.bytes,
            **place_errors(scene, track, own, truths, size),
            "identity": likeness(iter(shown), track, own, truths, bundle),
            "psnr_face": None if scene.name != "beside" else round(
                face_psnr(shown, source, truths[own],
                          [scene.at(f)[own] for f in range(scene.frames)]), 2
            ),
        }  # fmt: skip
    rows = np.linspace(0, scene.frames - 1, SHEET_FRAMES).astype(int).tolist()
    small = [[_small(each[row]) for row in rows] for each in (source, shown)]
    write_sheet(out / f"{scene.name}.png", small)
    return {
        "frames": scene.frames,
        "files": len(found.people),
        "people": people,
        "outside": ghosts(scene, shown, source, truths),
    }


def _owner(scene: Scene, track: FaceTrack, truths: Sequence[Truth], size: tuple[int, int]) -> int:
    """Return which person a file lies on in most frames."""
    errors = [
        place_errors(scene, track, own, truths, size)["frames_on_the_other"] for own in (0, 1)
    ]
    return int(np.argmin(errors))


def _small(picture: Picture) -> Picture:
    return np.asarray(
        cv2.resize(picture, None, fx=SHEET_SCALE, fy=SHEET_SCALE, interpolation=cv2.INTER_AREA),
        np.uint8,
    )


def measure_single(which: int, clip: Path, truth: Truth, out: Path, config: EncodeConfig) -> Record:
    """Return the figures of one person of `beside` alone."""
    scene = SCENES["beside"]
    video, file, shown = (
        out / f"single{which + 1}{end}" for end in (".mp4", ".sglat", "-onto.mp4")
    )
    if not video.exists():
        write_single(scene, which, clip, video)
    if not file.exists():
        encode(video, file, config)
    write_onto(file, shown, video)
    cards: list[Card] = [(0.0, 0.0)] * scene.frames
    quality = face_psnr(frames_of(shown), frames_of(video), truth, cards)
    return {"psnr_face": round(quality, 2), "file_bytes": file.stat().st_size}


def main() -> None:
    """Measure all scenes and write record and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("first", "second", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=100, help="tuning steps")
    parser.add_argument("--kept", default="", help="a remark on encodings that OUT already holds")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    config = EncodeConfig(
        preset="fast", tune_steps=chosen.steps, resolution=128, self_check=False, threads=1
    )
    bundle, clips = load_bundle("mini"), (chosen.first, chosen.second)
    longest = max(scene.frames for scene in SCENES.values())
    truths = [truth_of(clip, bundle, longest) for clip in clips]
    scenes = {
        name: measure_scene(scene, clips, truths, chosen.out, config, bundle)
        for name, scene in SCENES.items()
    }
    singles = {
        f"person {at + 1}": measure_single(at, clip, truths[at], chosen.out, config)
        for at, clip in enumerate(clips)
    }
    beside = scenes["beside"]["people"]
    losses = {
        name: round(single["psnr_face"] - beside[name]["psnr_face"], 2)
        for name, single in singles.items()
    }
    record = {
        "scenes": scenes,
        "singles": singles,
        "loss_decibels": losses,
        "steps": chosen.steps,
        "kept": chosen.kept,
        "runs": [provenance("python -m sglat_lab.bench.scenes")],
    }
    write_page(chosen.out / "scenes.json", record)


if __name__ == "__main__":
    main()
