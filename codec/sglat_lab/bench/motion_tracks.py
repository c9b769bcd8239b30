"""Material of the rate figures: simulated 34-channel motion of real clips, and files of it.

The true values of a `.sglat` file come from the encoder's optimiser. Where no real encode is at
hand, this module simulates them from a face landmarker's output on every frame of a clip:

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

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.channels import GROUP_SIZES
from sglat.bitstream.motion_coder import fit_model
from sglat.bitstream.records import (
    DeltaLayer,
    Header,
    Identity,
    LatentLayer,
    LowRankDelta,
    Motion,
    QuantizedTensor,
)
from sglat.bitstream.writer import Writer
from sglat.bundles.controls import NUM_CONTROLS
from sglat.networks.face_points import (
    BROWS,
    EYE_CORNERS,
    EYES,
    IRISES,
    JAW,
    LIPS,
    RIGID_WITH_FOREHEAD,
)
from sglat_lab.measure.landmarks import Tracked
from sglat_lab.measure.rates import Integers

FPS: Final = 25
LATENT_SHAPE: Final = (12, 256)

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
PX_PER_DEGREE = 0.45
"""RMS motion of all points for one degree of yaw or pitch in the aligned 128 px crop.

The crop follows the eyes and the mouth, so what moves is depth: a face is about 62 px wide there
and its points lie about 25 px RMS in depth from the plane of eyes and mouth; 25 px times one degree
(0.0175) is 0.44 px.
"""
BLENDSHAPE_STEP = 1 / 32  # rounding error at most 1/64 of the range


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
    return np.asarray(aligned[:, :, :2] * (0.244 * CROP_PX / distance))


def group_targets(frontal: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return each region's displacement from the clip's median face, `[T, 2K]` px."""
    targets = {}
    for name, indices in POINTS.items():
        part = frontal[:, np.array(indices)]
        if name == "gaze":  # irises relative to their own eye, sideways
            corners = frontal[:, np.array(EYE_CORNERS)].mean(axis=2)
            part = (part - corners)[:, :, :1]
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
    return np.asarray(effects / rms[:, None])


def landmark_tracks(clips: dict[str, Tracked]) -> dict[str, Track]:
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
    steps = np.full(CHANNELS, STEP_PX)
    steps[:2] = STEP_PX / PX_PER_DEGREE
    return {
        name: Track(
            values=np.concatenate([clip.angles[:, :2], *columns[name]], axis=1).astype(np.float32),
            steps=steps.astype(np.float32),
            fps=clip.fps,
        )
        for name, clip in clips.items()
    }


def blendshape_tracks(clips: dict[str, Tracked]) -> dict[str, Track]:
    """Return simulation 2: yaw, pitch and 32 of the landmarker's blendshapes."""
    steps = np.full(CHANNELS, BLENDSHAPE_STEP)
    steps[:2] = STEP_PX / PX_PER_DEGREE
    result = {}
    for name, clip in clips.items():
        columns = [clip.names.index(shape) for shape in BLENDSHAPES]
        values = np.concatenate([clip.angles[:, :2], clip.blendshapes[:, columns]], axis=1)
        result[name] = Track(
            values=values.astype(np.float32), steps=steps.astype(np.float32), fps=clip.fps
        )
    return result


def write_file(values: Integers, identity: Identity | None = None) -> bytes:
    """Return a whole file of these integers."""
    out = io.BytesIO()
    head = Header(
        decoder_id=bytes(range(32)),
        bundle="mini",
        resolution=128,
        num_ws=LATENT_SHAPE[0],
        w_dim=LATENT_SHAPE[1],
        motion_steps=np.full(34, 0.25, np.float32),
        time_base=Fraction(1, FPS),
        frame_ticks=1,
        frame_count=len(values),
        encoder="sglat 0.1.0",
        model=fit_model(values),
    )
    writer = Writer(out, head)
    writer.put_identity(identity or small_identity())
    writer.put_motion(Motion(values=values, steps=head.motion_steps))
    writer.close()
    return out.getvalue()


def small_identity() -> Identity:
    """Return an identity of one flat latent: its cost is measured elsewhere."""
    latent = QuantizedTensor(values=np.zeros(LATENT_SHAPE, np.int32), step=1.0)
    return Identity(layers=(LatentLayer(latent=latent),), neutral=np.zeros(34, np.float32))


def delta_layer(size_bytes: int) -> DeltaLayer:
    """Return low-rank deltas of about a size: Laplacian integers of about 3 bits each."""
    rng = np.random.default_rng(1)
    deltas: list[LowRankDelta] = []
    left = int(size_bytes * 8 / 2.9)
    while left > 0:
        rank = max(1, min(16, left // (256 + 2304)))
        factors = (
            np.rint(rng.laplace(scale=1.0, size=shape)).astype(np.int32)
            for shape in ((256, rank), (rank, 2304))
        )
        a, b = (QuantizedTensor(values=factor, step=0.01) for factor in factors)
        name = f"layer{len(deltas)}.weight"
        deltas.append(LowRankDelta(name=name, shape=(256, 256, 3, 3), left=a, right=b))
        left -= rank * (256 + 2304)
    return DeltaLayer(deltas=tuple(deltas))
