"""Label the test clips with MediaPipe's Face Landmarker: the yardstick of the face benchmark.

Needs the MediaPipe runtime. One npz a clip: landmarks in frame pixels, blendshapes, pose in
degrees, the aligned 128 px crop, and whether a face was found.
"""

from __future__ import annotations

import math
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.files import atomic_file
from sglat.networks.face_points import LEFT_EYE, MOUTH_CORNERS, RIGHT_EYE


def frames_of(clip: Path) -> list[NDArray[np.uint8]]:
    """Return all frames of a clip, RGB."""
    with av.open(str(clip)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def aligned_crop(
    frame: NDArray[np.uint8], points: NDArray[np.float32], size: int = 128
) -> NDArray[np.uint8]:
    """Return the FFHQ-style crop of a face given its landmarks in pixels."""
    quad = ffhq_quad(points)
    large = 4 * size
    corners = np.array(((0, 0), (0, large), (large, large), (large, 0)), np.float32)
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), corners)
    crop = cv2.warpPerspective(frame, matrix, (large, large), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def ffhq_quad(points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the crop's corners `[4, 2]`: top left, bottom left, bottom right, top right."""
    right, left = points[list(RIGHT_EYE)].mean(0), points[list(LEFT_EYE)].mean(0)
    middle, mouth = (left + right) / 2, points[list(MOUTH_CORNERS)].mean(0)
    between, down = left - right, mouth - middle
    across = between - np.array((-down[1], down[0]))
    across = across / np.hypot(*across)
    across = across * max(2.0 * np.hypot(*between), 1.8 * np.hypot(*down))
    along = np.array((-across[1], across[0]))
    centre = middle + 0.1 * down
    return np.stack(
        (
            centre - across - along,
            centre - across + along,
            centre + across + along,
            centre + across - along,
        )
    )


def label_clip(clip: Path, task: Path, folder: Path) -> dict[str, NDArray[np.generic]]:
    """Return a clip's labels, made once and kept in `folder`."""
    path = folder / f"{clip.stem}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, force=True) as file:
            np.savez(file, **_run_teacher(clip, task))  # type: ignore[arg-type]
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


def _run_teacher(clip: Path, task: Path) -> dict[str, NDArray[np.generic]]:
    import mediapipe
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(task)),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    names = ("found", "landmarks478", "blendshapes52", "yaw", "pitch", "roll", "crops128")
    columns: dict[str, list[object]] = {name: [] for name in names}
    frames = frames_of(clip)
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for number, frame in enumerate(frames):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame)
            result = landmarker.detect_for_video(image, 40 * number)
            columns["found"].append(bool(result.face_landmarks))
            if not result.face_landmarks:
                for name in names[1:]:
                    columns[name].append(columns[name][-1])  # a clip begins with a face
                continue
            height, width = frame.shape[:2]
            points = np.array([(p.x * width, p.y * height) for p in result.face_landmarks[0]])
            turn = np.array(result.facial_transformation_matrixes[0])[:3, :3]
            turn = turn / np.linalg.norm(turn, axis=0)
            columns["landmarks478"].append(points.astype(np.float32))
            columns["blendshapes52"].append([shape.score for shape in result.face_blendshapes[0]])
            columns["yaw"].append(math.degrees(math.atan2(turn[0, 2], turn[2, 2])))
            columns["pitch"].append(math.degrees(math.asin(np.clip(turn[1, 2], -1, 1))))
            columns["roll"].append(math.degrees(math.atan2(turn[1, 0], turn[1, 1])))
            columns["crops128"].append(aligned_crop(frame, points.astype(np.float32)))
    return {name: np.array(values) for name, values in columns.items()}
