"""Following a known person in a camera's frames by the landmarks of the face."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.decoder.placement import frame_to_crop, transform_points
from sglat.encoder.crops import landmark_placement
from sglat.encoder.follow import FollowConfig
from sglat.encoder.follow import Follower as FaceFollower
from sglat.errors import UsageError
from sglat.live.look import Look

LEARNING_FRAMES: Final = 25
"""From which the person's own shift of the estimates is learned: about a second."""


class LandmarkFollower:
    """Estimates motion from landmarks, shifted so that the first second is the person's neutral.

    Args:
        bundle: with face networks and a motion estimator.
        look: the person.

    Raises:
        UsageError: the bundle has no estimator.
    """

    def __init__(self, bundle: Bundle, look: Look) -> None:
        if not bundle.has("estimator"):
            raise UsageError("no-estimator", f"bundle {bundle.name} has no motion estimator")
        self._faces = FaceFollower(bundle.faces, FollowConfig())
        self._estimator, self._device = bundle.module("estimator"), bundle.device
        self._neutral = look.identity.neutral
        self._learned: list[NDArray[np.float32]] = []
        self._shift = np.zeros(len(self._neutral), np.float32)
        self._index = 0

    def step(self, frame: NDArray[Any], time: float) -> NDArray[np.float32] | None:
        """Return the motion in a frame, `[34]`; None where no face is found."""
        found, _ = self._faces.step(self._index, frame)
        self._index += 1
        if found is None:
            return None
        placement = landmark_placement(found.points[None], blink=np.zeros(1, np.bool_))
        points = transform_points(frame_to_crop(placement), found.points[None])
        pose = torch.tensor([[found.yaw_degrees, found.pitch_degrees]])
        inputs = (
            torch.from_numpy(points.astype(np.float32)),
            torch.from_numpy(found.blendshapes[None].astype(np.float32)),
            pose,
        )
        with torch.inference_mode():
            controls = self._estimator(*(part.to(self._device) for part in inputs)).cpu()
        motion = torch.cat([pose, controls], 1)[0].numpy().astype(np.float32)
        if len(self._learned) < LEARNING_FRAMES:
            self._learned.append(motion)
            self._shift = self._neutral - np.median(self._learned, axis=0).astype(np.float32)
            self._shift[:2] = 0  # yaw and pitch are measured, not estimated
        return np.asarray(motion + self._shift, dtype=np.float32)
