"""Measure the embedded face networks: detection, landmarks, parsing, identity, perceptual, speed.

    python -m sglat_lab.bench.faces --weights DIR --shared DIR --cache DIR --output DIR

Writes `faces.json` and, unless told not to, one picture a network into the output folder; prints
the figures. The clips and the packs' validation rows have never been trained on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import load_file

from sglat.bundles.manifest import MANIFEST_NAME, read_manifest, read_tensors
from sglat.networks.embedded_analysis import ROLES, EmbeddedAnalysis
from sglat.networks.face_points import FIRST_IRIS_POINT, LEFT_EYE, RIGHT_EYE
from sglat.networks.faces import FaceBox, FaceLandmarks
from sglat_lab.bench.faces_pictures import Clip, draw_all
from sglat_lab.measure.faces_labels import frames_of, label_clip
from sglat_lab.train.data import Faces, prepare, read_parsing, to_input
from sglat_lab.train.faces_augment import scenery
from sglat_lab.train.faces_identity import align_for_teacher, pair_auc
from sglat_lab.train.faces_parsing import class_ious, confusion_of, held_back_rows, mean_iou

# Photographs without a person that scikit-image carries; one shows a cat.
PHOTOGRAPHS = (
    "brick", "cell", "chelsea", "clock_motion", "coffee", "coins", "grass", "gravel", "horse",
    "hubble_deep_field", "ihc", "moon", "motorcycle_left", "motorcycle_right", "page", "retina",
    "rocket", "text",
)  # fmt: skip
OTHER_DRAWS = (101, 102, 103, 104, 105, 106)  # of pairs; training looks at none of them
PARTS = "detection,landmarks,validation,parsing,identity,perceptual,speed,pictures"
Figures = dict[str, Any]


def analyse(
    eyes: EmbeddedAnalysis, path: Path, labels: dict[str, NDArray[np.generic]], *, every: bool
) -> Clip:
    """Run detector (on `every` frame, or the first alone) and landmark tracking over a clip."""
    frames = frames_of(path)
    boxes = [next(iter(eyes.detect(frame)), None) for frame in frames[: None if every else 1]]
    boxes += boxes[-1:] * (len(frames) - len(boxes))
    tracks: list[FaceLandmarks] = []
    for frame, box in zip(frames, boxes, strict=True):
        height, width = frame.shape[:2]
        start = box or FaceBox(left=0, top=0, right=width, bottom=height, score=0)
        previous = tracks[-1] if tracks and tracks[-1].score > 0.5 else None
        tracks.append(eyes.landmarks(frame, start, previous=previous))
    return Clip(name=path.stem, frames=frames, labels=labels, boxes=boxes, tracks=tracks)


def overlap(box: FaceBox | None, points: NDArray[np.float32]) -> float:
    """Return intersection over union of a box and the bounding box of landmarks."""
    if box is None:
        return 0.0
    low, high = points.min(0), points.max(0)
    wide = max(0.0, min(box.right, high[0]) - max(box.left, low[0]))
    tall = max(0.0, min(box.bottom, high[1]) - max(box.top, low[1]))
    own = (box.right - box.left) * (box.bottom - box.top)
    return float(wide * tall / (own + (high - low).prod() - wide * tall))


def detection(eyes: EmbeddedAnalysis, clips: list[Clip]) -> Figures:
    """Return the share of frames whose face is found, and false faces in pictures without one."""
    figures: Figures = {"clips": {}}
    overlaps = []
    for clip in clips:
        points = np.asarray(clip.labels["landmarks478"], np.float32)
        values = [overlap(box, p) for box, p in zip(clip.boxes, points, strict=True)]
        figures["clips"][clip.name] = {
            "found": float(np.mean([box is not None for box in clip.boxes])),
            "iou_0.7": float(np.mean(np.array(values) >= 0.7)),
            "mean_iou": float(np.mean(values)),
        }
        overlaps += values
    figures["frames"] = len(overlaps)
    figures["found"] = float(np.mean([b is not None for clip in clips for b in clip.boxes]))
    figures["found_iou_0.7"] = float(np.mean(np.array(overlaps) >= 0.7))
    figures["false_in_scenery"] = sum(len(eyes.detect(p)) for p in procedural_scenery())
    false = {name: len(eyes.detect(p)) for name, p in photographs()}
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


def interocular(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance of the eye centres `[T]` of `[T, 478, 2]`."""
    return np.linalg.norm(
        points[:, list(LEFT_EYE)].mean(1) - points[:, list(RIGHT_EYE)].mean(1), axis=1
    )


def aspect_ratio(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the eye aspect ratios `[T, 2]`, left and right, of points `[T, 478, 2]`."""

    def one(eye: tuple[int, ...]) -> NDArray[np.float32]:
        p = points[:, list(eye)]
        tall = np.linalg.norm(p[:, 1] - p[:, 5], axis=1) + np.linalg.norm(p[:, 2] - p[:, 4], axis=1)
        return tall / (2 * np.linalg.norm(p[:, 0] - p[:, 3], axis=1))

    return np.stack((one(LEFT_EYE), one(RIGHT_EYE)), axis=1)


def landmark_figures(clips: list[Clip]) -> Figures:
    """Return errors against the teacher's labels, blinks and jitter on the tracked clips."""
    figures: Figures = {"clips": {}}
    pooled: dict[str, list[NDArray[np.float32]]] = {}
    hits = found = wanted = 0
    for clip in clips:
        use = np.asarray(clip.labels["found"], bool)
        truth = np.asarray(clip.labels["landmarks478"], np.float32)
        mine = np.stack([track.points for track in clip.tracks])
        unit = interocular(truth)
        distance = 100 * np.linalg.norm(mine - truth, axis=2) / unit[:, None]
        pose = np.array([(t.yaw_degrees, t.pitch_degrees, t.roll_degrees) for t in clip.tracks])
        labels = np.stack([clip.labels[key] for key in ("yaw", "pitch", "roll")], 1)
        blendshapes = np.stack([t.blendshapes for t in clip.tracks])
        eyes = np.array([t.eye_openness for t in clip.tracks])
        true_eyes = aspect_ratio(truth)
        shut = (eyes < np.median(eyes[use], 0) / 3)[use]
        truly = (true_eyes < np.median(true_eyes[use], 0) / 3)[use]
        hits, found, wanted = (
            hits + int((shut & truly).sum()), found + int(shut.sum()), wanted + int(truly.sum()),
        )  # fmt: skip
        row = {
            "points": distance[use].mean(1),
            "iris": distance[use][:, FIRST_IRIS_POINT:].mean(1),
            "pose": np.abs(pose - labels)[use].mean(1),
            "blendshapes": np.abs(blendshapes - clip.labels["blendshapes52"])[use].mean(1),
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


def second_difference(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far points jump off a straight line from frame to frame, `[T - 2]` in pixels."""
    return np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2).mean(1)


def landmark_validation(eyes: EmbeddedAnalysis, faces: Faces) -> Figures:
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
        out = eyes.landmarks(np.ascontiguousarray(faces.images[row]), box)
        unit = interocular(points[None])[0]
        distance = 100 * np.linalg.norm(out.points - points, axis=1) / unit
        values["points"].append(float(distance.mean()))
        values["iris"].append(float(distance[FIRST_IRIS_POINT:].mean()))
        pose = np.array((out.yaw_degrees, out.pitch_degrees, out.roll_degrees))
        truth = np.array([faces.labels[key][row] for key in ("yaw", "pitch", "roll")])
        values["pose"].append(float(np.abs(pose - truth).mean()))
        truth = np.array([faces.labels[key][row] for key in ("ear_left", "ear_right")])
        values["eyes"].append(float(np.abs(np.array(out.eye_openness) - truth).mean()))
    return {"faces": len(rows)} | {key: float(np.mean(value)) for key, value in values.items()}


def parsing_figures(eyes: EmbeddedAnalysis, packs: Path) -> Figures:
    """Return mean IoU and accuracy at 256 px on the held-back masks."""
    pictures, masks, names = read_parsing(packs / "parsing256")
    confusion = np.zeros((19, 19), np.int64)
    for row in held_back_rows(names):
        crop = to_input(torch.from_numpy(pictures[row][None]))
        confusion += confusion_of(eyes.parse(crop)[0].argmax(0).numpy(), masks[row])
    ious = {str(k): round(float(v), 4) for k, v in enumerate(class_ious(confusion))}
    accuracy = float(np.trace(confusion) / confusion.sum())
    return {"miou": mean_iou(confusion), "accuracy": accuracy, "classes": ious}


def identity_figures(eyes: EmbeddedAnalysis, faces: Faces, teacher: Path) -> Figures:
    """Return the AUC over all pairs of held-back persons, and the teacher's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(teacher))
    rows = [r for r in faces.rows(split="val", stills=True) if faces.labels["identity"][r] >= 0]
    stills = np.stack([faces.images[r] for r in rows])
    points = faces.labels["landmarks478"][rows].astype(np.float32) * 128

    def embed(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return eyes.embed(to_input(torch.from_numpy(pictures))).numpy()

    vectors = [
        session.run(None, {"input0": align_for_teacher(s, p)[None]})[0][0]
        for s, p in zip(stills, points, strict=True)
    ]
    teacher_vectors = np.stack(vectors)
    teacher_vectors /= np.linalg.norm(teacher_vectors, axis=1, keepdims=True)
    mine = embed(stills)
    persons = faces.labels["identity"][rows]
    same = np.triu(persons[:, None] == persons[None], 1).sum()
    return {
        "auc": pair_auc(mine, faces.labels["identity"][rows]),
        "auc_teacher": pair_auc(teacher_vectors, faces.labels["identity"][rows]),
        "cosine_with_teacher": float((mine * teacher_vectors).sum(1).mean()),
        "pairs_same": int(same),
        "pairs": len(rows) * (len(rows) - 1) // 2,
        "faces": len(rows),
    }


def perceptual_figures(
    eyes: EmbeddedAnalysis, faces: Faces, features: Path, heads: Path, generated: Path | None
) -> Figures:
    """Return rank correlations with LPIPS-squeeze on distorted validation faces.

    Training looks at the first draw of pairs; the other draws are of pairs that it does not see.
    """
    from sglat_lab.measure.teachers import SqueezePerceptual, load_lpips_heads
    from sglat_lab.train.faces_perceptual import PerceptualTask, read_generated

    pairs = read_generated([generated] if generated is not None else [])
    task = PerceptualTask(faces, SqueezePerceptual(features, load_lpips_heads(heads)), pairs)
    others = [task.validate(eyes.perceptual, seed=seed) for seed in OTHER_DRAWS]
    kinds = sorted({key for draw in others for key in draw})
    return {
        "first_draw": task.validate(eyes.perceptual),
        "spearman_other_draws": [draw["spearman"] for draw in others],
        "other_draws_mean": {
            key: float(np.mean([draw[key] for draw in others if key in draw])) for key in kinds
        },
    }


def speed_figures(eyes: EmbeddedAnalysis, clip: Clip, threads: int) -> Figures:
    """Return milliseconds a frame of each network, and all four together in frames a second."""
    torch.set_num_threads(threads)
    frame, box, track = clip.frames[0], clip.boxes[0], clip.tracks[0]
    crop = to_input(torch.from_numpy(np.asarray(clip.labels["crops128"][:1])))
    assert box is not None
    found = box

    def embed() -> None:
        with torch.inference_mode():
            eyes.embed(crop)

    parts = {
        "detection": lambda: eyes.detect(frame),
        "landmarks": lambda: eyes.landmarks(frame, found, previous=track),
        "parsing": lambda: eyes.parse(crop),
        "identity": embed,
    }
    figures: Figures = {"threads": threads, "frame": list(frame.shape)}
    for name, call in parts.items():
        times = []
        busy = time.process_time()
        for _ in range(30):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        figures[f"{name}_ms"] = 1000 * float(np.median(times))
        figures[f"{name}_cpu_ms"] = 1000 * (time.process_time() - busy) / len(times)
        figures[f"{name}_ms_best"] = 1000 * float(np.min(times))
    figures["frames_per_second"] = 1000 / sum(figures[f"{name}_ms"] for name in parts)
    figures["frames_per_cpu_second"] = 1000 / sum(figures[f"{name}_cpu_ms"] for name in parts)
    figures["frames_per_second_best"] = 1000 / sum(figures[f"{name}_ms_best"] for name in parts)
    return figures


def rounded(value: Any) -> Any:
    """Round every number of a nest of dictionaries to four places."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def main(
    weights: Annotated[Path, typer.Option(help="Folder of faces_<role>.safetensors.")],
    shared: Annotated[Path, typer.Option(help="Folder with clips, data and teachers.")],
    cache: Annotated[Path, typer.Option(help="Decoded packs and the clips' labels are kept here.")],
    output: Annotated[Path, typer.Option(help="Figures go here.")],
    heads: Annotated[Path | None, typer.Option(help="LPIPS v0.1 heads for SqueezeNet.")] = None,
    generated: Annotated[Path | None, typer.Option(help="npz of generator outputs.")] = None,
    parts: Annotated[str, typer.Option(help="What to measure, comma-separated.")] = PARTS,
    threads: int = 2,
) -> None:
    """Measure the parts asked for, keep earlier figures of the others, print all as JSON."""
    torch.set_num_threads(threads)
    wanted = set(parts.split(","))
    eyes = load_eyes(weights)
    faces = prepare(shared / "data", cache, 128)
    teachers = shared / "teachers"
    clips: list[Clip] = []
    if wanted & {"detection", "landmarks", "speed", "pictures"}:
        task = teachers / "face_landmarker_v2_with_blendshapes.task"
        paths = sorted((shared / "clips").glob("*.mp4"))
        every = bool(wanted & {"detection", "pictures"})
        for path in paths:
            labels = label_clip(path, task, cache / "clips")
            clips.append(analyse(eyes, path, labels, every=every))
    measure: dict[str, Callable[[], Figures]] = {
        "detection": lambda: detection(eyes, clips),
        "landmarks": lambda: landmark_figures(clips),
        "validation": lambda: landmark_validation(eyes, faces),
        "parsing": lambda: parsing_figures(eyes, shared / "data"),
        "identity": lambda: identity_figures(eyes, faces, teachers / "mobilefacenet_id.onnx"),
        "speed": lambda: speed_figures(eyes, clips[0], threads),
    }
    if heads is not None:
        features = teachers / "squeezenet1_1_features.npz"
        measure["perceptual"] = lambda: perceptual_figures(eyes, faces, features, heads, generated)
    output.mkdir(parents=True, exist_ok=True)
    path = output / "faces.json"
    figures: Figures = json.loads(path.read_text()) if path.exists() else {}
    figures |= {name: rounded(call()) for name, call in measure.items() if name in wanted}
    text = json.dumps(figures, indent=1)
    path.write_text(text + "\n")
    print(text)
    if "pictures" in wanted:
        draw_all(eyes, clips, output)


def load_eyes(weights: Path) -> EmbeddedAnalysis:
    """Return the networks in a folder, their check sums compared where there is a manifest."""
    if (weights / MANIFEST_NAME).exists():
        records = read_manifest(weights).parts
        stored = {role: read_tensors(weights, records[f"faces_{role}"]) for role in ROLES}
    else:
        stored = {role: load_file(weights / f"faces_{role}.safetensors") for role in ROLES}
    return EmbeddedAnalysis.from_tensors(stored)


if __name__ == "__main__":
    typer.run(main)
