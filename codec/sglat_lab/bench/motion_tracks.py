"""Makes realistic 34-channel motion tracks from real clips, for measuring the motion coder.

The true values of a `.sglat` file come from the encoder's optimiser. Where no real encode is at
hand, this module simulates them from what a face landmarker sees in every frame of the shared test
clips:

1.  The MediaPipe FaceLandmarker (video mode) gives 478 points, 52 blendshapes and a head matrix per
    frame.
2.  Yaw and pitch come from the head matrix, in degrees.
3.  The points are brought to a frontal, head-fixed frame (similarity fit on points that do not move
    with expression) and scaled to the aligned crop of 128 px, so that displacements are picture
    effects.
4.  For each group of controls (mouth 17, chin 4, eyes 6, brows 4, gaze 1) the displacements of the
    region's points are the *target*; the controls are `n` fixed directions: the principal
    directions, weighted by the square root of their spread and mixed by a fixed random rotation, so
    that controls overlap and share their energy, as StyleSpace channels do. Each has unit effect:
    one unit moves the region's points by 1 px RMS at 128 px. The 34 values are the ridge solution
    for each frame, warm-started nowhere: landmarker jitter stays in.
5.  Step rule (default quality): one step moves the region's points by 0.3 px RMS at 128 px, so that
    the rounding error of one channel never moves them by more than 0.15 px (0.12 % of the crop).

`blendshape_tracks` is a second, independent simulation: 32 of MediaPipe's own blendshapes, step =
1/32 of the range 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sglat.bundles.controls import GROUP_SIZES, NUM_CONTROLS
from sglat.networks.face_points import (
    BROWS,
    EYE_CORNERS,
    EYES,
    IRISES,
    JAW,
    LIPS,
    RIGID_WITH_FOREHEAD,
)

STEP_PX = 0.3  # px at 128 px, RMS, of one step: rounding then moves a region by 0.15 px at most
CROP_PX = 128.0
CHANNELS = 2 + NUM_CONTROLS
POINTS = {"mouth": LIPS, "chin": JAW, "eyes": EYES[: -len(IRISES)], "brows": BROWS, "gaze": IRISES}
BLENDSHAPES = (
    "mouthClose", "mouthFunnel", "mouthPucker",
    "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthStretchLeft", "mouthStretchRight", "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft",
    "mouthPressRight", "jawOpen", "jawForward", "jawLeft", "jawRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "browDownLeft", "browDownRight", "browInnerUp",
    "browOuterUpLeft", "eyeLookOutLeft",
)  # fmt: skip
BLENDSHAPE_STEP = 1 / 32  # rounding error at most 1/64 of the range


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """What the landmarker saw in one clip."""

    points: NDArray[np.float32]
    """`[T, 478, 3]` pixels of the picture."""
    blendshapes: NDArray[np.float32]
    """`[T, 52]`, 0 to 1."""
    names: tuple[str, ...]
    matrix: NDArray[np.float32]
    """`[T, 4, 4]` head matrix."""
    fps: float


@dataclass(frozen=True, kw_only=True)
class Track:
    """One simulated motion track."""

    values: NDArray[np.float32]
    """`[T, 34]`: yaw, pitch in degrees, then mouth 17, chin 4, eyes 6, brows 4, gaze 1."""
    steps: NDArray[np.float32]
    """`[34]` steps of the default quality."""
    fps: float

    def quantized(self, coarser: float = 1.0) -> NDArray[np.int32]:
        """Return the integers `[T, 34]` with all steps multiplied by `coarser`."""
        return np.rint(self.values / (self.steps * coarser)).astype(np.int32)


def track_clip(path: Path, model: Path) -> Tracked:
    """Run the landmarker over every frame; frames without a face repeat the one before."""
    import av
    import mediapipe
    from mediapipe.tasks import python as tasks
    from mediapipe.tasks.python import vision

    options = vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    points, shapes, matrices = [], [], []
    names: tuple[str, ...] = ()
    with vision.FaceLandmarker.create_from_options(options) as finder, av.open(str(path)) as file:
        stream = file.streams.video[0]
        fps = float(stream.average_rate)
        for number, frame in enumerate(file.decode(stream)):
            picture = np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            found = finder.detect_for_video(image, int(number * 1000 / fps))
            if found.face_landmarks:
                height, width = picture.shape[:2]
                scale = np.array([width, height, width], np.float32)
                points.append(
                    np.array([[p.x, p.y, p.z] for p in found.face_landmarks[0]], np.float32) * scale
                )
                names = tuple(shape.category_name for shape in found.face_blendshapes[0])
                shapes.append(
                    np.array([shape.score for shape in found.face_blendshapes[0]], np.float32)
                )
                matrices.append(np.asarray(found.facial_transformation_matrixes[0], np.float32))
            elif points:
                points.append(points[-1])
                shapes.append(shapes[-1])
                matrices.append(matrices[-1])
    return Tracked(
        points=np.stack(points),
        blendshapes=np.stack(shapes),
        names=names,
        matrix=np.stack(matrices),
        fps=fps,
    )


def fit_similarity(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Return scale and rotation `[3, 3]` that bring centred points `[K, 3]` onto their targets.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters".
    """
    u, spread, vt = np.linalg.svd(source.T @ target)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    return float((spread * np.diag(sign)).sum() / (source**2).sum()), u @ sign @ vt


def frontal_points(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return `[T, 478, 2]`: head-fixed frontal points in px of the aligned 128 px crop.

    Scale: the eye centres lie 0.244 of the crop apart, as in the aligned training packs.
    """
    cloud = points.astype(np.float64)
    steady = np.array(RIGID_WITH_FOREHEAD)
    cloud -= cloud[:, steady].mean(axis=1, keepdims=True)
    template = cloud[np.argmin(np.abs(cloud[:, 4, 0]))]  # most frontal: the nose nearest the middle
    for _ in range(3):
        aligned = np.empty_like(cloud)
        for number, frame in enumerate(cloud):
            scale, rotation = fit_similarity(frame[steady], template[steady])
            aligned[number] = scale * frame @ rotation
        template = np.median(aligned, axis=0)
    eyes = template[np.array(EYE_CORNERS)].mean(axis=1)
    distance = float(np.linalg.norm(eyes[1][:2] - eyes[0][:2]))
    return aligned[:, :, :2] * (0.244 * CROP_PX / distance)


def head_angles(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return yaw and pitch in degrees `[T, 2]` of head matrices."""
    rotation = matrix[:, :3, :3]
    yaw = np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])
    pitch = np.arcsin(np.clip(rotation[:, 1, 2], -1, 1))
    return np.degrees(np.stack([yaw, pitch], axis=1))


def group_targets(frontal: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return each region's displacement from the clip's median face, `[T, 2K]` px."""
    targets = {}
    for name, indices in POINTS.items():
        part = frontal[:, np.array(indices)]
        if name == "gaze":  # irises relative to their own eye, sideways
            corners = frontal[:, np.array(EYE_CORNERS)].mean(axis=2)
            part = (part - corners)[:, :, :1]
        if name == "mouth":  # the jaw carries the lower lip; both groups see it, as in StyleSpace
            part = part.copy()
        part = part - np.median(part, axis=0)
        targets[name] = part.reshape(len(part), -1)
    return targets


def control_effects(
    targets: list[NDArray[np.float64]], count: int, seed: int
) -> NDArray[np.float64]:
    """Return `[count, D]`: the picture effect of overlapping controls, each 1 px RMS per unit."""
    pooled = np.concatenate(targets)
    _, spread, directions = np.linalg.svd(pooled, full_matrices=False)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(count, count)))
    effects = rotation @ (np.sqrt(spread[:count, None]) * directions[:count])
    per_point = 1 if count == 1 else 2
    rms = np.sqrt((effects**2).sum(axis=1) / (effects.shape[1] / per_point))
    return effects / rms[:, None]


def landmark_tracks(clips: dict[str, Tracked], step_px: float = STEP_PX) -> dict[str, Track]:
    """Return simulation 1: 32 overlapping landmark controls, solved per frame."""
    frontal = {name: frontal_points(clip.points) for name, clip in clips.items()}
    targets = {name: group_targets(points) for name, points in frontal.items()}
    columns: dict[str, list[NDArray[np.float64]]] = {name: [] for name in clips}
    for seed, (group, count) in enumerate(GROUP_SIZES.items()):
        effects = control_effects([targets[name][group] for name in clips], count, seed)
        points = effects.shape[1] / (1 if count == 1 else 2)
        ridge = 1e-3 * points  # px squared per unit squared: keeps unneeded controls near zero
        solver = np.linalg.solve(effects @ effects.T + ridge * np.eye(count), effects)
        for name in clips:
            columns[name].append(targets[name][group] @ solver.T)
    steps = np.full(CHANNELS, step_px)
    steps[:2] = step_px / PX_PER_DEGREE
    return {
        name: Track(
            values=np.concatenate([head_angles(clip.matrix), *columns[name]], axis=1).astype(
                np.float32
            ),
            steps=steps.astype(np.float32),
            fps=clip.fps,
        )
        for name, clip in clips.items()
    }


PX_PER_DEGREE = 0.45
"""RMS motion of all points for one degree of yaw or pitch in the aligned 128 px crop.

The crop follows the eyes and the mouth, so what moves is depth: a face is about 62 px wide there
and its points lie about 25 px RMS in depth from the plane of eyes and mouth; 25 px times one degree
(0.0175) is 0.44 px.
"""


def blendshape_tracks(clips: dict[str, Tracked], step: float = BLENDSHAPE_STEP) -> dict[str, Track]:
    """Return simulation 2: yaw, pitch and 32 blendshapes as the landmarker gives them."""
    steps = np.full(CHANNELS, step)
    steps[:2] = STEP_PX / PX_PER_DEGREE
    result = {}
    for name, clip in clips.items():
        columns = [clip.names.index(shape) for shape in BLENDSHAPES]
        values = np.concatenate([head_angles(clip.matrix), clip.blendshapes[:, columns]], axis=1)
        result[name] = Track(
            values=values.astype(np.float32), steps=steps.astype(np.float32), fps=clip.fps
        )
    return result


def load_or_track(clips_folder: Path, model: Path, cache: Path) -> dict[str, Tracked]:
    """Return the landmarker's view of every clip, from the cache where it is already there."""
    cache.mkdir(parents=True, exist_ok=True)
    tracked = {}
    for path in sorted(clips_folder.glob("*.mp4")):
        stored = cache / f"{path.stem}_tracked.npz"
        if not stored.exists():
            seen = track_clip(path, model)
            np.savez(
                stored,
                points=seen.points,
                blendshapes=seen.blendshapes,
                names=np.array(seen.names),
                matrix=seen.matrix,
                fps=seen.fps,
            )
        with np.load(stored, allow_pickle=False) as file:
            tracked[path.stem] = Tracked(
                points=file["points"],
                blendshapes=file["blendshapes"],
                names=tuple(str(name) for name in file["names"]),
                matrix=file["matrix"],
                fps=float(file["fps"]),
            )
    return tracked
