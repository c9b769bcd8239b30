"""Face landmarks of crops and videos: MediaPipe, or the bundle's own landmark network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError
from sglat.files import atomic_file
from sglat.media.reader import VideoReader
from sglat.networks.face_points import NUM_BLENDSHAPES, NUM_POINTS
from sglat.networks.faces import FaceAnalysis, FaceBox

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Pictures = NDArray[np.uint8]

LARGER: Final = 2  # crops are enlarged before detection
CROP_FACE: Final = (0.2, 0.28, 0.8, 0.95)  # left, top, right, bottom of the face in an FFHQ crop


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Landmarks, blendshapes and pose of a sequence of aligned crops."""

    points: Float32
    """`[T, 478, 2]` in unit crop coordinates; NaN where no face was found."""
    blendshapes: Float32
    """`[T, 52]`, 0 to 1."""
    pose: Float32
    """`[T, 2]` yaw and pitch in degrees."""

    @property
    def is_found(self) -> NDArray[np.bool_]:
        """`[T]` frames with a face."""
        return ~np.isnan(self.pose[:, 0])

    def packed(self) -> Float32:
        """Return all in one array, `[T, 1010]`."""
        flat = self.points.reshape(len(self.points), -1)
        return np.concatenate([flat, self.blendshapes, self.pose], axis=1)

    @classmethod
    def unpacked(cls, values: Float32) -> Signals:
        """Return what `packed` was made of."""
        return cls(
            points=np.array(values[:, : 2 * NUM_POINTS]).reshape(-1, NUM_POINTS, 2),
            blendshapes=np.array(values[:, 2 * NUM_POINTS : -2]),
            pose=np.array(values[:, -2:]),
        )

    def cut(self, rows: NDArray[np.int64] | slice) -> Signals:
        """Return some of the frames."""
        return Signals(
            points=self.points[rows], blendshapes=self.blendshapes[rows], pose=self.pose[rows]
        )


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One face found in one picture."""

    points: Float32
    """`[478, 3]`; x and y in unit picture coordinates, depth on the scale of x."""
    blendshapes: Float32
    """`[52]`, 0 to 1."""
    angles: Float64
    """`[3]` yaw, pitch and roll in degrees."""
    names: tuple[str, ...] = ()
    """Of the blendshapes; empty where the network gives none."""


class Landmarker:
    """A landmark network: subclasses give `name` and `detect`."""

    name: str

    def detect(self, picture: Pictures) -> Detection | None:
        """Return the face of a picture `[H, W, 3]`, or None."""
        raise NotImplementedError

    def signals(self, pictures: Pictures) -> Signals:
        """Return the signals of crops `[T, H, W, 3]`."""
        count = len(pictures)
        points = np.full((count, NUM_POINTS, 2), np.nan, np.float32)
        shapes = np.full((count, NUM_BLENDSHAPES), np.nan, np.float32)
        pose = np.full((count, 2), np.nan, np.float32)
        for at, picture in enumerate(pictures):
            found = self.detect(picture)
            if found is not None:
                points[at], shapes[at] = found.points[:, :2], found.blendshapes
                pose[at] = found.angles[:2]
        return Signals(points=points, blendshapes=shapes, pose=pose)

    def close(self) -> None:
        """Release the network."""


class EmbeddedLandmarker(Landmarker):
    """The bundle's own landmark network, on aligned crops.

    Args:
        faces: face analysis of the bundle.
    """

    name = "the bundle's own landmark network"

    def __init__(self, faces: FaceAnalysis) -> None:
        self._faces = faces

    def detect(self, picture: Pictures) -> Detection | None:
        """Return the face of a crop `[R, R, 3]`, or None."""
        side = picture.shape[1]
        left, top, right, bottom = (side * share for share in CROP_FACE)
        box = FaceBox(left=left, top=top, right=right, bottom=bottom, score=1.0)
        found = self._faces.landmarks(picture, box)
        if found.score < 0.5:
            return None
        flat = np.zeros((NUM_POINTS, 3), np.float32)
        flat[:, :2] = found.points / side
        angles = np.array([found.yaw_degrees, found.pitch_degrees, found.roll_degrees])
        return Detection(points=flat, blendshapes=found.blendshapes, angles=angles)


class MediaPipeLandmarker(Landmarker):
    """MediaPipe's face landmarker; without `is_video` nothing is smoothed over time.

    Args:
        file: the task file.
        is_video: frames of one video in order, smoothed over time.
    """

    name = "MediaPipe"

    def __init__(self, file: Path, *, is_video: bool = False) -> None:
        try:
            import mediapipe as mp
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise MissingExtraError("mediapipe", extra="simulate") from error
        self._mp: Any = mp
        mode = vision.RunningMode.VIDEO if is_video else vision.RunningMode.IMAGE
        self._landmarker: Any = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(file)),
                running_mode=mode,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
                num_faces=1,
            )
        )

    def close(self) -> None:
        """Release the network; MediaPipe cannot do so by itself while Python ends."""
        self._landmarker.close()

    def detect(self, picture: Pictures) -> Detection | None:
        """Return the face of a crop, enlarged for detection, or None."""
        large = np.ascontiguousarray(picture.repeat(LARGER, 0).repeat(LARGER, 1))
        return _detection(self._landmarker.detect(self._image(large)))

    def detect_next(self, picture: Pictures, milliseconds: int) -> Detection | None:
        """Return the face of a video's next frame, or None."""
        image = self._image(np.ascontiguousarray(picture))
        return _detection(self._landmarker.detect_for_video(image, milliseconds))

    def _image(self, picture: Pictures) -> Any:
        return self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=picture)


def _detection(found: Any) -> Detection | None:
    if not found.face_landmarks:
        return None
    shapes = found.face_blendshapes[0]
    return Detection(
        points=np.array([(p.x, p.y, p.z) for p in found.face_landmarks[0]], np.float32),
        blendshapes=np.array([shape.score for shape in shapes], np.float32),
        angles=head_angles(np.asarray(found.facial_transformation_matrixes[0], np.float64)),
        names=tuple(shape.category_name for shape in shapes),
    )


def head_angles(matrix: Float64) -> Float64:
    """Return yaw, pitch and roll in degrees `[3]` of a head matrix that may carry a scale."""
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    yaw = np.arctan2(rotation[0, 2], rotation[2, 2])
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return np.asarray(np.degrees([yaw, pitch, roll]))


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A whole video through MediaPipe in video mode."""

    points: Float32
    """`[T, 478, 3]` pixels of the frame; depth on the scale of the width."""
    blendshapes: Float32
    """`[T, 52]`, 0 to 1."""
    names: tuple[str, ...]
    angles: Float64
    """`[T, 3]` yaw, pitch and roll in degrees."""
    is_found: NDArray[np.bool_]
    """`[T]`; frames without a face repeat the one before."""
    fps: float


def tracked_video(video: Path, task: Path, folder: Path) -> Tracked:
    """Return a video's landmarks, made once and kept in a folder.

    Args:
        video: a face from the first frame on; frames before it are an error.
        task: MediaPipe task file.
        folder: of kept results, made if absent.

    Raises:
        UsageError: no face in the first frame.
    """
    path = folder / f"{video.stem}_landmarks.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = _track(video, task)
        with atomic_file(path, force=True) as file:
            np.savez(file, allow_pickle=False, **vars(found))
    with np.load(path, allow_pickle=False) as stored:
        plain = {"names": tuple(map(str, stored["names"])), "fps": float(stored["fps"])}
        return Tracked(**{**stored, **plain})


def _track(video: Path, task: Path) -> Tracked:
    landmarker = MediaPipeLandmarker(task, is_video=True)
    found: list[Detection] = []
    seen: list[bool] = []
    scales: list[Float32] = []
    with VideoReader(video) as reader:
        fps = float(reader.info.frame_rate)
        for frame in reader:
            one = landmarker.detect_next(frame.picture, int(frame.index * 1000 / fps))
            if one is None and not found:
                raise UsageError("no-face", f"expected a face in the first frame of {video.name}")
            found.append(found[-1] if one is None else one)
            seen.append(one is not None)
            height, width = frame.picture.shape[:2]
            scales.append(np.array([width, height, width], np.float32))
    landmarker.close()
    return Tracked(
        points=np.stack([d.points * s for d, s in zip(found, scales, strict=True)]),
        blendshapes=np.stack([d.blendshapes for d in found]),
        names=found[0].names,
        angles=np.stack([d.angles for d in found]),
        is_found=np.array(seen),
        fps=fps,
    )
