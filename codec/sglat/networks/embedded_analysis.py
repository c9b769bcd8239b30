"""Face analysis with the embedded networks, which need no download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sglat.errors import BundleError, FaceError
from sglat.networks.embedded_nets import (
    ALIGN,
    INPUT_SIZE,
    DetectorNetwork,
    IdentityNetwork,
    LandmarkNetwork,
    LandmarkOutput,
    ParsingNetwork,
    candidates,
)
from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat.networks.embedded_views import (
    View,
    checked_picture,
    cut_view,
    letterbox,
    smoothed,
    to_picture,
    view_of_box,
    view_of_points,
)
from sglat.networks.faces import FaceBox, FaceLandmarks

KINDS: Final[dict[str, type[nn.Module]]] = {
    "detector": DetectorNetwork,
    "landmarks": LandmarkNetwork,
    "parsing": ParsingNetwork,
    "identity": IdentityNetwork,
    "perceptual": PerceptualNetwork,
}
ROLES: Final = tuple(KINDS)
TRACKED_SCORE: Final = 0.5  # below, the face is no longer where it was
DETECT_SIDE: Final = 256  # pixels: longest side at which a picture is searched first
DETECT_SIDE_FINE: Final = 640  # of the second search, for pictures in which the first finds nothing
DETECT_SCORE: Final = 0.5  # faces scored below are not reported
FACE_SCORE: Final = 0.99  # a found face is dropped where the landmark network scores it below
MIN_SIDE: Final = 16  # pixels; a smaller picture holds no face that could be found


class EmbeddedAnalysis:
    """The embedded networks, by role (`ROLES`), behind the interface of `FaceAnalysis`.

    Arrays that are no picture, boxes that are empty and tensors that are no batch of crops raise
    FaceError.
    """

    def __init__(
        self,
        *,
        networks: Mapping[str, nn.Module],
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        given = dict(networks)
        for role, kind in KINDS.items():
            if not isinstance(given.get(role), kind):
                found = type(given[role]).__name__ if role in given else "none"
                raise BundleError(
                    "missing-weights",
                    f"face network {role}: expected {kind.__name__}, found {found}",
                )
            given[role].eval().requires_grad_(False)
            given[role].to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks = given

    @property
    def perceptual(self) -> PerceptualNetwork:
        """The perceptual distance `[N]` of two batches of pictures; differentiable."""
        network = self.networks["perceptual"]
        assert isinstance(network, PerceptualNetwork)
        return network

    @torch.inference_mode()
    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        """Return all faces of a picture of any size, largest first; none is an empty list.

        A box is the bounding box of the landmarks. The landmark network checks each detection.
        """
        picture = checked_picture(picture)
        if min(picture.shape[:2]) < MIN_SIDE:
            return []
        boxes = self._search(picture, DETECT_SIDE)
        if not boxes and max(picture.shape[:2]) > DETECT_SIDE:
            boxes = self._search(picture, DETECT_SIDE_FINE)
        return sorted(boxes, key=lambda box: (box.left - box.right) * (box.bottom - box.top))

    def _search(self, picture: NDArray[np.uint8], longest: int) -> list[FaceBox]:
        small, scale = letterbox(picture, longest, ALIGN)
        output = self.networks["detector"](small.to(self.device, memory_format=torch.channels_last))
        rows = candidates(output, threshold=DETECT_SCORE)[0].cpu() / scale
        boxes = []
        for left, top, right, bottom, score in rows.tolist():
            box = FaceBox(left=left, top=top, right=right, bottom=bottom, score=score * scale)
            if self._face_score(picture, box) >= FACE_SCORE:
                boxes.append(box)
        return boxes

    def _face_score(self, picture: NDArray[np.uint8], box: FaceBox) -> float:
        output = self._run_landmarks(picture, view_of_box(box))
        return float(torch.sigmoid(output.score_logit))

    def _run_landmarks(self, picture: NDArray[np.uint8], view: View) -> LandmarkOutput:
        crop = cut_view(picture, view, INPUT_SIZE)
        output: LandmarkOutput = self.networks["landmarks"](crop.to(self.device))
        return output

    @torch.inference_mode()
    def landmarks(
        self,
        picture: NDArray[np.uint8],
        box: FaceBox,
        *,
        previous: FaceLandmarks | None = None,
    ) -> FaceLandmarks:
        """Return the landmarks of the face in a box.

        Without `previous` the network runs twice: on the box, then on the face found there, turned
        upright. With the landmarks of the previous frame it runs once, at their place, and smooths
        the result over time; if the face has left that place, it starts again from the box. A box
        without a face gives a low score, not an error.
        """
        picture = checked_picture(picture)
        if previous is not None:
            view = view_of_points(previous.points)
            found = _to_record(self._run_landmarks(picture, view), view)
            if found.score >= TRACKED_SCORE:
                return smoothed(found, previous)
        rough_view = view_of_box(box)
        rough = self._run_landmarks(picture, rough_view)
        view = view_of_points(to_picture(rough.points[0].cpu().numpy(), rough_view))
        return _to_record(self._run_landmarks(picture, view), view)

    def parse(self, crops: Tensor) -> Tensor:
        """Return class probabilities `[N, 19, H, W]` of aligned crops `[N, 3, H, W]` in [-1, 1];
        differentiable.
        """
        small = _resized(crops, INPUT_SIZE).to(self.device)
        scores = self.networks["parsing"](small)
        if scores.shape[2:] != crops.shape[2:]:
            scores = functional.interpolate(
                scores, crops.shape[2:], mode="bilinear", align_corners=False
            )
        return torch.softmax(scores, dim=1)

    def embed(self, crops: Tensor) -> Tensor:
        """Return unit vectors `[N, 128]` of aligned crops `[N, 3, H, W]`; differentiable."""
        small = _resized(crops, INPUT_SIZE).to(self.device)
        vectors: Tensor = self.networks["identity"](small)
        return vectors

    def embed_for_loss(self, crops: Tensor) -> Tensor:
        """Return what `embed` returns: the one identity network here is differentiable."""
        return self.embed(crops)


def _to_record(output: LandmarkOutput, view: View) -> FaceLandmarks:
    yaw, pitch, roll = output.pose[0].tolist()
    left, right = output.eye_openness[0].tolist()
    return FaceLandmarks(
        points=to_picture(output.points[0].cpu().numpy(), view),
        yaw_degrees=yaw,
        pitch_degrees=pitch,
        roll_degrees=roll + view.roll_degrees,
        eye_openness=(left, right),
        blendshapes=output.blendshapes[0].cpu().numpy(),
        score=float(torch.sigmoid(output.score_logit[0])),
    )


def _resized(crops: Tensor, size: int) -> Tensor:
    if crops.ndim != 4 or crops.shape[1] != 3 or not crops.is_floating_point():
        raise FaceError(
            "bad-crops",
            f"expected float [N, 3, H, W], found {crops.dtype} {list(crops.shape)}",
        )
    if crops.shape[2:] == (size, size):
        return crops.float()
    return functional.interpolate(
        crops.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
