"""Probes of the embedded face networks, against MediaPipe, masks, MobileFaceNet and LPIPS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.encoder.crops import crop_picture, landmark_placement
from sglat.errors import UsageError
from sglat.media.reader import VideoReader
from sglat.networks.embedded_analysis import EmbeddedAnalysis
from sglat.networks.embedded_nets import overlap_of
from sglat.networks.face_points import FIRST_IRIS_POINT
from sglat.networks.faces import PARSING_CLASSES, FaceBox, FaceLandmarks
from sglat.networks.pixels import from_pixels
from sglat_lab.measure.judges import IDENTITY_FILE, LANDMARKER_FILE, SQUEEZE_FILE
from sglat_lab.measure.landmarks import Tracked, tracked_video
from sglat_lab.measure.teachers import (
    MobileFaceIdentity,
    SqueezePerceptual,
    aligned_vectors,
    pair_auc,
)
from sglat_lab.train.adversarial_examples import TunedGenerator
from sglat_lab.train.data import Faces, read_parsing
from sglat_lab.train.faces_aligned import class_ious, confusion_of, held_back_rows, mean_iou
from sglat_lab.train.faces_augment import scenery
from sglat_lab.train.faces_landmarks import eye_aspect, interocular
from sglat_lab.train.faces_perceptual import PerceptualTask, read_generated

# Photographs without a person that scikit-image carries; one shows a cat.
PHOTOGRAPHS: Final = (
    "brick", "cell", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel", "horse",
    "hubble_deep_field", "ihc", "moon", "motorcycle_left", "motorcycle_right", "page", "retina",
    "rocket", "text",
)  # fmt: skip
OTHER_DRAWS: Final = (101, 102, 103, 104, 105, 106)  # of pairs; training uses none of them
FOOLED_WEIGHTS: Final = (0.7, 0.05)  # perceptual and identity, of the encoder's loss
SPEED_RUNS: Final = 30
Figures = dict[str, Any]
Points = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A test clip, its labels and the output of the embedded networks."""

    name: str
    frames: list[NDArray[np.uint8]]
    labels: Tracked
    """By MediaPipe in video mode."""
    boxes: list[FaceBox | None]
    """Found in each frame on its own; None where there is none."""
    tracks: list[FaceLandmarks]
    """Each frame started from the one before."""

    @property
    def points(self) -> Points:
        """Labelled landmarks in pixels, `[T, 478, 2]`."""
        return self.labels.points[:, :, :2]

    def crop(self, moment: int, side: int = 128) -> NDArray[np.uint8]:
        """Return the aligned crop of a frame by its labels, `[side, side, 3]`."""
        one = self.points[moment : moment + 1]
        placement = landmark_placement(one, blink=np.zeros(1, bool), steady_mouth=False)
        return crop_picture(self.frames[moment], placement[0], side)


def analyse(
    networks: EmbeddedAnalysis, path: Path, teachers: Path, kept: Path, *, every: bool
) -> Clip:
    """Run detector (on `every` frame, or the first alone) and landmark tracking over a clip.

    Args:
        networks: under test.
        path: the clip.
        teachers: folder of the measuring networks.
        kept: folder of the clips' labels.
        every: detect in every frame.
    """
    labels = tracked_video(path, teachers / LANDMARKER_FILE, kept)
    with VideoReader(path) as reader:
        frames = [frame.picture for frame in reader]
    boxes = [next(iter(networks.detect(f)), None) for f in frames[: None if every else 1]]
    boxes += boxes[-1:] * (len(frames) - len(boxes))
    tracks: list[FaceLandmarks] = []
    for frame, box in zip(frames, boxes, strict=True):
        height, width = frame.shape[:2]
        start = box or FaceBox(left=0, top=0, right=width, bottom=height, score=0)
        previous = tracks[-1] if tracks and tracks[-1].score > 0.5 else None
        tracks.append(networks.landmarks(frame, start, previous=previous))
    return Clip(name=path.stem, frames=frames, labels=labels, boxes=boxes, tracks=tracks)


def overlap(box: FaceBox | None, points: Points) -> float:
    """Return intersection over union of a box and the bounding box of landmarks."""
    if box is None:
        return 0.0
    wanted = torch.from_numpy(np.concatenate([points.min(0), points.max(0)]))
    return overlap_of(torch.tensor((box.left, box.top, box.right, box.bottom)), wanted)


def detection(networks: EmbeddedAnalysis, clips: list[Clip]) -> Figures:
    """Return the share of frames whose face is found, and false faces in pictures without one."""
    figures: Figures = {"clips": {}}
    overlaps = []
    for clip in clips:
        values = [overlap(box, p) for box, p in zip(clip.boxes, clip.points, strict=True)]
        figures["clips"][clip.name] = {
            "found": float(np.mean([box is not None for box in clip.boxes])),
            "iou_0.7": float(np.mean(np.array(values) >= 0.7)),
            "mean_iou": float(np.mean(values)),
        }
        overlaps += values
    figures["frames"] = len(overlaps)
    figures["found"] = float(np.mean([b is not None for clip in clips for b in clip.boxes]))
    figures["found_iou_0.7"] = float(np.mean(np.array(overlaps) >= 0.7))
    figures["false_in_scenery"] = sum(len(networks.detect(p)) for p in procedural_scenery())
    false = {name: len(networks.detect(p)) for name, p in photographs()}
    figures["false_in_photographs"] = {name: count for name, count in false.items() if count}
    figures["photographs"], figures["scenery"] = len(false), len(procedural_scenery())
    return figures


def photographs() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield real pictures without a person."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    for name in PHOTOGRAPHS:
        path = next(iter(folder.glob(f"{name}.*")), None)
        picture = None if path is None else cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            yield name, np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def procedural_scenery() -> list[NDArray[np.uint8]]:
    """Return twenty generated pictures, of another seed than any in training."""
    return [scenery(384, np.random.default_rng((2026, index))) for index in range(20)]


def eye_distance(points: Points) -> Points:
    """Return the distance of the eye centres `[T]` of `[T, 478, 2]`."""
    return interocular(torch.from_numpy(points)).numpy()


def landmark_figures(clips: list[Clip]) -> Figures:
    """Return errors against the teacher's labels, blinks and jitter on the tracked clips."""
    figures: Figures = {"clips": {}}
    pooled: dict[str, list[Points]] = {}
    hits = found = wanted = 0
    for clip in clips:
        use, truth = clip.labels.is_found, clip.points
        mine = np.stack([track.points for track in clip.tracks])
        unit = eye_distance(truth)
        distance = 100 * np.linalg.norm(mine - truth, axis=2) / unit[:, None]
        pose = np.array([(t.yaw_degrees, t.pitch_degrees, t.roll_degrees) for t in clip.tracks])
        blendshapes = np.stack([t.blendshapes for t in clip.tracks])
        eyes = np.array([t.eye_openness for t in clip.tracks])
        true_eyes = eye_aspect(truth)
        shut = (eyes < np.median(eyes[use], 0) / 3)[use]
        truly = (true_eyes < np.median(true_eyes[use], 0) / 3)[use]
        hits, found, wanted = (
            hits + int((shut & truly).sum()), found + int(shut.sum()), wanted + int(truly.sum()),
        )  # fmt: skip
        row = {
            "points": distance[use].mean(1),
            "iris": distance[use][:, FIRST_IRIS_POINT:].mean(1),
            "pose": np.abs(pose - clip.labels.angles)[use].mean(1),
            "blendshapes": np.abs(blendshapes - clip.labels.blendshapes)[use].mean(1),
            "eyes": np.abs(eyes - true_eyes)[use].mean(1),
            "jitter": 100 * second_difference(mine) / unit.mean(),
            "jitter_teacher": 100 * second_difference(truth) / unit.mean(),
        }
        figures["clips"][clip.name] = {key: float(value.mean()) for key, value in row.items()}
        figures["clips"][clip.name] |= {"shut": int(shut.sum()), "truly_shut": int(truly.sum())}
        for key, value in row.items():
            pooled.setdefault(key, []).append(value)
    figures |= {key: float(np.concatenate(values).mean()) for key, values in pooled.items()}
    figures["blink_precision"] = hits / max(found, 1)
    figures["blink_recall"] = hits / max(wanted, 1)
    figures["blink_f1"] = 2 * hits / max(found + wanted, 1)
    return figures


def second_difference(points: Points) -> Points:
    """Return how far points jump off a straight line from frame to frame, `[T - 2]` in pixels."""
    second = points[2:] - 2 * points[1:-1] + points[:-2]
    return np.asarray(np.linalg.norm(second, axis=2).mean(1))


def landmark_validation(networks: EmbeddedAnalysis, faces: Faces) -> Figures:
    """Return errors on the packs' validation rows, from a jittered box as a detector gives it."""
    rows = faces.rows(split="val")
    values: dict[str, list[float]] = {"points": [], "iris": [], "pose": [], "eyes": []}
    for row in rows:
        points = faces.labels["landmarks478"][row].astype(np.float32) * 128
        generator = np.random.default_rng(int(row))
        low, high = points.min(0), points.max(0)
        shift = generator.uniform(-0.05, 0.05, 2) * (high - low).max()
        sides = (*(low + shift), *(high + shift))
        box = FaceBox(left=sides[0], top=sides[1], right=sides[2], bottom=sides[3], score=1)
        out = networks.landmarks(np.ascontiguousarray(faces.images[row]), box)
        unit = eye_distance(points[None])[0]
        distance = 100 * np.linalg.norm(out.points - points, axis=1) / unit
        values["points"].append(float(distance.mean()))
        values["iris"].append(float(distance[FIRST_IRIS_POINT:].mean()))
        pose = np.array((out.yaw_degrees, out.pitch_degrees, out.roll_degrees))
        truth = np.array([faces.labels[key][row] for key in ("yaw", "pitch", "roll")])
        values["pose"].append(float(np.abs(pose - truth).mean()))
        truth = np.array([faces.labels[key][row] for key in ("ear_left", "ear_right")])
        values["eyes"].append(float(np.abs(np.array(out.eye_openness) - truth).mean()))
    return {"faces": len(rows)} | {key: float(np.mean(value)) for key, value in values.items()}


def parsing_figures(networks: EmbeddedAnalysis, packs: Path) -> Figures:
    """Return mean IoU and accuracy at 256 px on the held-back masks."""
    pictures, masks, names = read_parsing(packs / "parsing256")
    confusion = np.zeros((19, 19), np.int64)
    for row in held_back_rows(names):
        crop = from_pixels(pictures[row][None])
        confusion += confusion_of(networks.parse(crop)[0].argmax(0).numpy(), masks[row])
    names = [name.replace("_", " ") for name in PARSING_CLASSES]
    ious = dict(zip(names, class_ious(confusion).tolist(), strict=True))
    accuracy = float(np.trace(confusion) / confusion.sum())
    return {"miou": mean_iou(confusion), "accuracy": accuracy, "classes": ious}


def identity_figures(networks: EmbeddedAnalysis, faces: Faces, teachers: Path) -> Figures:
    """Return the AUC over all pairs of held-back persons, and the teacher's."""
    rows = [r for r in faces.rows(split="val", stills=True) if faces.labels["identity"][r] >= 0]
    stills = np.stack([faces.images[r] for r in rows])
    points = faces.labels["landmarks478"][rows].astype(np.float32) * 128

    def embed(pictures: NDArray[np.uint8]) -> Points:
        with torch.inference_mode():
            return networks.embed(from_pixels(pictures)).numpy()

    wanted = aligned_vectors(teachers / IDENTITY_FILE, zip(stills, points, strict=True))
    mine = embed(stills)
    persons = faces.labels["identity"][rows]
    same = np.triu(persons[:, None] == persons[None], 1).sum()
    return {
        "auc": pair_auc(mine, faces.labels["identity"][rows]),
        "auc_teacher": pair_auc(wanted, faces.labels["identity"][rows]),
        "cosine_with_teacher": float((mine * wanted).sum(1).mean()),
        "pairs_same": int(same),
        "pairs": len(rows) * (len(rows) - 1) // 2,
        "faces": len(rows),
    }


def perceptual_figures(
    networks: EmbeddedAnalysis, faces: Faces, teachers: Path, heads: Path, generated: Path | None
) -> Figures:
    """Return rank correlations with LPIPS-squeeze on distorted validation faces.

    The first draw is the one of validation in training; the other draws are never used there.
    """
    pairs = read_generated([generated] if generated is not None else [])
    teacher = SqueezePerceptual(teachers / SQUEEZE_FILE, heads)
    task = PerceptualTask(faces, teacher, pairs)
    others = [task.validate(networks.perceptual, seed=seed) for seed in OTHER_DRAWS]
    kinds = sorted({key for draw in others for key in draw})
    return {
        "first_draw": task.validate(networks.perceptual),
        "spearman_other_draws": [draw["spearman"] for draw in others],
        "other_draws_mean": {
            key: float(np.mean([draw[key] for draw in others if key in draw])) for key in kinds
        },
    }


def speed_figures(networks: EmbeddedAnalysis, clip: Clip, threads: int) -> Figures:
    """Return milliseconds a frame of each network, and all four together in frames a second."""
    torch.set_num_threads(threads)
    frame, box, track = clip.frames[0], clip.boxes[0], clip.tracks[0]
    crop = from_pixels(clip.crop(0)[None])
    if box is None:
        raise UsageError("no-face", f"expected a face in the first frame of {clip.name}")

    def embed() -> None:
        with torch.inference_mode():
            networks.embed(crop)

    parts = {
        "detection": lambda: networks.detect(frame),
        "landmarks": lambda: networks.landmarks(frame, box, previous=track),
        "parsing": lambda: networks.parse(crop),
        "identity": embed,
    }
    run: Figures = {"threads": threads, "frame": list(frame.shape)}
    for name, call in parts.items():
        times = []
        busy = time.process_time()
        for _ in range(SPEED_RUNS):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        run[f"{name}_ms"] = 1000 * float(np.median(times))
        run[f"{name}_cpu_ms"] = 1000 * (time.process_time() - busy) / len(times)
        run[f"{name}_ms_best"] = 1000 * float(np.min(times))
    run["together_ms"] = sum(run[f"{name}_ms"] for name in parts)
    for key, suffix in (("frames_per_second", "ms"), ("frames_per_cpu_second", "cpu_ms"),
                        ("frames_per_second_best", "ms_best")):  # fmt: skip
        run[key] = 1000 / sum(run[f"{name}_{suffix}"] for name in parts)
    return {"runs": [run]}


def fooled_figures(
    networks: EmbeddedAnalysis, faces: Faces, teachers: Path, heads: Path, *, count: int, steps: int
) -> Figures:
    """Return how far tuning a generator fools the identity and perceptual networks.

    Latents and filters of the embedded generator are tuned to validation stills with the encoder's
    loss (pixels, embedded perceptual distance, embedded identity). Means by the networks and by
    their teachers, before and after.

    Args:
        networks: under test, and minimised.
        faces: for the stills.
        teachers: folder of the measuring networks.
        heads: LPIPS v0.1 heads for SqueezeNet.
        count: stills.
        steps: of tuning each.
    """
    rows = np.random.default_rng(4).choice(faces.rows(split="val", stills=True), count, False)
    identity = MobileFaceIdentity(teachers / IDENTITY_FILE).eval()
    perceptual = SqueezePerceptual(teachers / SQUEEZE_FILE, heads).eval()
    tuner = TunedGenerator()
    table: dict[str, list[list[float]]] = {"untuned": [], "tuned": []}
    for row in rows:
        reference = from_pixels(np.asarray(faces.images[row])[None])

        def cosine(network: Callable[[Tensor], Tensor], made: Tensor, wanted: Tensor) -> Tensor:
            return (network(made) * network(wanted)).sum(1)

        def distance(made: Tensor, wanted: Tensor = reference) -> Tensor:
            similar: Tensor = cosine(networks.embed, made, wanted)
            seen: Tensor = networks.perceptual(made, wanted)
            return FOOLED_WEIGHTS[0] * seen + FOOLED_WEIGHTS[1] * (1 - similar)

        tuned = tuner.tuned(reference, distance, steps=steps)
        for name, made in (("untuned", tuner.pictures(reference)), ("tuned", tuned)):
            with torch.no_grad():
                values = (
                    cosine(networks.embed, made, reference),
                    cosine(identity, made, reference),
                    networks.perceptual(made, reference),
                    perceptual(made, reference, use_heads=True),
                    (made - reference).abs().mean((1, 2, 3)),
                )
            table[name].append([float(value) for value in values])
    columns = ("identity", "identity_teacher", "perceptual", "perceptual_teacher", "l1")
    means = {
        name: dict(zip(columns, np.mean(values, 0).tolist(), strict=True))
        for name, values in table.items()
    }
    return {"faces": count, "steps": steps, **means}
