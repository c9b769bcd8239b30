"""Encoding frame by frame as they come: a known person's motion and placement, no frame ahead.

A frame goes through two halves that may run side by side, each in its order: `prepare` follows,
registers and cuts out the face, `solve` takes the step from the frame before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.records import FIRST_CONTROL
from sglat.bundles.bundle import Bundle
from sglat.decoder.placement import SIZE, frame_to_crop, transform_points
from sglat.decoder.synthesizer import Renderer
from sglat.encoder.align import AlignConfig
from sglat.encoder.crops import crop_picture, inside_mask, landmark_placement
from sglat.encoder.follow import FollowConfig, Follower
from sglat.encoder.jacobians import secant_jacobians
from sglat.encoder.known import (
    LIKE,
    KnownPerson,
    estimates_of,
    landmarks_of,
    looks_of,
    rendered_faces,
)
from sglat.encoder.registration import RegisteredRow, Registration, scaled
from sglat.encoder.sequential import SequentialConfig, SequentialSolver
from sglat.encoder.solve_motion import ResidualConfig, expression_residual
from sglat.encoder.start_motion import SIGMA_DEGREES, corrected_motion
from sglat.encoder.track import WHOLE, TrackConfig
from sglat.errors import UsageError
from sglat.networks.devices import fast_type
from sglat.networks.face_points import BLINK_SHAPES
from sglat.networks.faces import FaceLandmarks
from sglat.networks.pixels import from_pixels

Float64 = NDArray[np.float64]
T = TypeVar("T")

REMEMBERED: Final = 100
"""Frames over which a face's usual proportions are medians."""


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """How frames are encoded as they come."""

    face: int | None = None
    """1 is the largest of the first frame with a face; None: the one most like the person."""
    whole: float = 0.85
    """Share of the landmarks within the frame below which the motion stays as it was: half a face
    tells too little of the rest."""
    watch_every: int = 25
    """Frames between checks that the face is still the person's."""
    points: int = 2
    """Linearisation points."""
    change: float = 0.1
    """Of each value for the differences that Jacobians are, in units of `comparable`."""
    residual: ResidualConfig = ResidualConfig()  # noqa: RUF009
    solver: SequentialConfig = SequentialConfig()  # noqa: RUF009
    correction_noise: float = 0.3
    """See `corrected_motion`."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A frame between its two halves."""

    is_held: bool
    """No face was found: the last one stands still."""
    is_cut: bool
    """The video cuts before this frame."""
    placement: Float64
    """`[4]` as in `Alignment`; repeated where held, 0 before the first face."""
    crop: NDArray[np.uint8] | None
    """`[R, R, 3]`; None where no motion is solved."""
    mask: NDArray[np.bool_] | None
    """`[R, R]` what lies within the frame; None if all does."""
    estimate: Tensor
    """Motion from landmarks alone, `[34]`."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time taken by `track` and `align`."""

    @property
    def is_followed(self) -> bool:
        """Whether the motion continues that of the frame before."""
        return self.crop is not None and not self.is_cut and not self.is_held


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Motion and placement of one frame."""

    motion: NDArray[np.float32]
    """`[34]`; repeated where held."""
    placement: Float64
    """`[4]`."""
    is_held: bool
    is_cut: bool
    loss: float
    """Of the prediction, as in `SequentialSolver.losses`; 0 where held."""
    seconds: dict[str, float]
    """Time taken by `track`, `align` and `solve`."""


@dataclass
class _Seen:
    """What registration reads, of the frames it still needs."""

    width: int = 0
    height: int = 0
    breaks: dict[int, bool] = field(default_factory=dict)
    held: dict[int, bool] = field(default_factory=dict)
    leaving: dict[int, bool] = field(default_factory=dict)
    pose: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    points: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    framed: dict[int, Float64] = field(default_factory=dict)

    def keep(self, numbers: set[int]) -> None:
        """Forget all other frames."""
        for table in (self.breaks, self.held, self.leaving, self.pose, self.points, self.framed):
            for number in [n for n in table if n not in numbers]:
                del table[number]


class CausalEncoder:
    """Encodes the frames of one known person.

    Args:
        known: the person.
        bundle: at its base resolution.
        frame_rate: of the frames to come.
        config: see `CausalConfig`.
        progress: called with linearisation points done and in all.

    Raises:
        UsageError: `no-estimator` for a bundle without a motion estimator.
    """

    def __init__(
        self,
        known: KnownPerson,
        bundle: Bundle,
        *,
        frame_rate: float = 25.0,
        config: CausalConfig | None = None,
        progress: Any = None,
    ) -> None:
        self.config = config or CausalConfig()
        self.known, self.bundle = known, bundle
        faces = rendered_faces(known, bundle)
        estimates = estimates_of(faces, bundle)
        if estimates is None:
            raise UsageError(
                "no-estimator",
                f"expected a bundle with a motion estimator, {bundle.name!r} has none: "
                "encode with another preset",
            )
        self.estimates, self.typical = estimates, known.typical.cpu()
        self.resolution = bundle.resolution
        self.follower = Follower(faces=bundle.faces, config=FollowConfig())
        self.looks = looks_of(known, bundle)
        self.likeness: float | None = None
        """Identity cosine of the first face to the person's."""
        self.doubts = 0
        self.seen = _Seen()
        self.registration = Registration(self.seen, self.seen.framed, AlignConfig(
            resolution=self.resolution
        ).registration)  # fmt: skip
        self.latest: deque[tuple[NDArray[np.float32], bool]] = deque(maxlen=REMEMBERED)
        sigma = AlignConfig(resolution=self.resolution).join_seconds * frame_rate
        self.share = 1 - float(np.exp(-1 / max(sigma, 1e-6)))
        """Of a new drift in the smoothed one: the time constant is that of the offline Gaussian."""
        self.index = -1
        self.summed = np.zeros(4)
        self.drift: Float64 | None = None
        self.key_crop: NDArray[np.float32] | None = None
        self.before: tuple[RegisteredRow, Float64] | None = None
        self.placement = np.zeros(4)
        self.motion = known.person.neutral.cpu().numpy().astype(np.float32)
        self._faces, self._progress = faces, progress

    @cached_property
    def solver(self) -> SequentialSolver:
        """With Jacobians at the person's typical motions, which take the longest time to start:
        frames can be prepared meanwhile."""
        known, config = self.known, self.config
        points = torch.from_numpy(landmarks_of(self._faces, self.bundle))
        residual = expression_residual(self.bundle, points, config.residual)
        typical = known.typical[: config.points]
        exact = Renderer(known.tuned, known.person, half=False, workers=1)
        change = torch.full_like(typical[0], config.change)
        change[:FIRST_CONTROL] *= SIGMA_DEGREES
        found = secant_jacobians(exact.render, typical, residual, change, self._progress)
        is_fast = fast_type(self.bundle.device) != torch.float32
        renderer = Renderer(known.tuned, known.person, half=is_fast, workers=1)
        return SequentialSolver(renderer.render, found, residual, config.solver)

    def step(self, picture: NDArray[np.uint8]) -> Encoded:
        """Encode the next frame, `[H, W, 3]` uint8 RGB."""
        return self.solve(self.prepare(picture))

    @torch.no_grad()
    def prepare(self, picture: NDArray[np.uint8]) -> Prepared:
        """Follow, register and cut out the face of the next frame, `[H, W, 3]` uint8 RGB."""
        began = time.perf_counter()
        self.index += 1
        if self.follower.last is None:
            self._choose_face(picture)
        found, is_cut = self.follower.step(self.index, picture)
        if found is not None and self._is_other(picture, found, is_cut=is_cut):
            found = None
        tracked = time.perf_counter()
        was_held = self.seen.held.get(self.index - 1, False)
        self.seen.height, self.seen.width = picture.shape[:2]
        self.seen.held[self.index] = found is None
        self.seen.breaks[self.index] = is_cut or (was_held != (found is None))
        if found is None:
            self.seen.framed[self.index] = self.placement
            self.registration.step(self.index, picture)
            self.before = self.drift = None
            self.seen.keep({self.index})
            return Prepared(
                is_held=True, is_cut=is_cut, placement=self.placement, crop=None, mask=None,
                estimate=torch.from_numpy(self.motion),
                seconds={"track": tracked - began, "align": time.perf_counter() - tracked},
            )  # fmt: skip
        self.placement = self._placed(picture, found)
        crop, mask = None, None
        if self.follower.inside >= self.config.whole:
            crop = crop_picture(picture, self.placement, self.resolution)
        if self.seen.leaving[self.index]:
            size = (self.seen.width, self.seen.height)
            mask = inside_mask(self.placement, size, self.resolution)
        estimate = self._estimated(found)
        self.seen.keep({self.index, self.registration.key_index})
        done = time.perf_counter()
        return Prepared(
            is_held=False, is_cut=is_cut or was_held, placement=self.placement, crop=crop,
            mask=mask, estimate=estimate,
            seconds={"track": tracked - began, "align": done - tracked},
        )  # fmt: skip

    def _choose_face(self, picture: NDArray[np.uint8]) -> None:
        """Choose the face most like the known person, where there are several."""
        boxes = self.bundle.faces.detect(picture)
        face = self.config.face or 1
        if self.config.face is None and len(boxes) > 1:
            found = [self.bundle.faces.landmarks(picture, box) for box in boxes]
            face = 1 + int(np.argmax([self._likeness(picture, one) for one in found]))
        self.follower.config = replace(self.follower.config, face=face)

    def _likeness(self, picture: NDArray[np.uint8], found: FaceLandmarks) -> float:
        """Return the identity cosine of a face to the known person's."""
        framed = landmark_placement(found.points[None], blink=np.zeros(1, bool))[0]
        crop = from_pixels(crop_picture(picture, framed, self.resolution)[None])
        seen = self.bundle.faces.embed(crop.to(self.bundle.device))
        return float((seen @ self.looks.T).max())

    def _is_other(self, picture: NDArray[np.uint8], found: FaceLandmarks, *, is_cut: bool) -> bool:
        """Whether the face is somebody else's, by two frames in a row.

        Judged where a face is new, every `watch_every` frames, and while in doubt. Where the first
        face is unlike already, it is taken as it is: the person may have changed.
        """
        is_new = is_cut or self.seen.held.get(self.index - 1, True)
        if is_new or self.doubts or self.index % self.config.watch_every == 0:
            alike = self._likeness(picture, found)
            if self.likeness is None:
                self.likeness = alike
            self.doubts = self.doubts + 1 if alike < LIKE <= self.likeness else 0
        if self.doubts < 2:
            return False
        self.follower.last = None  # look for the known person anew
        return True

    def _placed(self, picture: NDArray[np.uint8], found: FaceLandmarks) -> Float64:
        """Return the placement: steps of the registration, slowly pulled to the landmarks."""
        index, seen = self.index, self.seen
        if seen.breaks[index]:
            self.before = self.drift = None
        openness, blink = np.array(found.eye_openness), TrackConfig.blink_shape
        is_blink = bool((openness < TrackConfig.blink_openness).any())
        is_blink |= bool((found.blendshapes[list(BLINK_SHAPES)] > blink).all())
        self.latest.append((found.points, is_blink))
        points = np.stack([one for one, _ in self.latest])
        blinks = np.array([one for _, one in self.latest])
        framed = landmark_placement(points, blink=blinks)[-1]
        seen.points[index] = found.points
        seen.pose[index] = np.array(
            [found.yaw_degrees, found.pitch_degrees, found.roll_degrees], np.float32
        )
        seen.leaving[index] = self.follower.inside < WHOLE
        seen.framed[index] = framed
        row = self.registration.step(index, picture)
        if row.key_frame == index and self.registration.previous is not None:
            self.key_crop = self.registration.previous[1]
        row_scaled, framed_scaled = scaled(row.placement[None])[0], scaled(framed[None])[0]
        if self.before is None or self.drift is None:
            self.summed, self.drift = np.zeros(4), framed_scaled
        else:
            last, last_framed = self.before
            is_usable = row.is_registered or row.key_frame == index
            was_usable = last.is_registered or last.key_frame == index - 1
            step = framed_scaled - last_framed
            if not np.isnan(row.step).any():
                step = row.step
            if row.key_frame == last.key_frame and is_usable and was_usable:
                step = row_scaled - scaled(last.placement[None])[0]
            self.summed = self.summed + step
            self.drift = self.drift + self.share * (framed_scaled - self.summed - self.drift)
        self.before = row, framed_scaled
        placement = self.summed + self.drift
        placement[SIZE] = np.exp(placement[SIZE])
        return np.asarray(placement)

    def _estimated(self, found: FaceLandmarks) -> Tensor:
        """Return the corrected estimate of the motion from landmarks, `[34]`."""
        to_crop = frame_to_crop(self.placement)
        points = transform_points(to_crop, found.points.astype(np.float64)).astype(np.float32)
        pose = torch.tensor([[found.yaw_degrees, found.pitch_degrees]])
        shapes = torch.from_numpy(found.blendshapes.astype(np.float32))[None]
        inputs = (torch.from_numpy(points)[None], shapes, pose)
        estimator = self.bundle.module("estimator")
        controls = estimator(*(one.to(self.bundle.device) for one in inputs)).cpu()
        both = torch.cat([self.estimates, torch.cat([pose, controls], 1)])
        rows = list(range(len(self.estimates)))
        return corrected_motion(both, rows, self.typical, self.config.correction_noise)[-1]

    def solve(self, prepared: Prepared) -> Encoded:
        """Take the step of a prepared frame; frames come in their order."""
        began, loss = time.perf_counter(), 0.0
        if prepared.is_cut or prepared.is_held:
            self.solver.reset()
        if prepared.crop is not None:
            device = self.bundle.device
            picture = from_pixels(prepared.crop[None]).to(device)
            mask = None
            if prepared.mask is not None:
                mask = torch.from_numpy(prepared.mask).float()[None, None].to(device)
            motion = self.solver.step(picture, prepared.estimate.to(device), mask)
            self.motion, loss = motion.cpu().numpy(), self.solver.losses[-1]
        seconds = prepared.seconds | {"solve": time.perf_counter() - began}
        return Encoded(
            motion=self.motion, placement=prepared.placement, is_held=prepared.is_held,
            is_cut=prepared.is_cut, loss=loss, seconds=seconds,
        )  # fmt: skip

    def between(self, prepared: Prepared, share: float) -> Encoded:
        """Return the motion of a frame some share of the way between the last two that were
        solved: the estimate, moved by their shifts from estimate to solution, which change
        slowly."""
        before, after = list(self.solver.shifts)[-2:]
        motion = prepared.estimate.to(before) + before + share * (after - before)
        return Encoded(
            motion=motion.cpu().numpy(), placement=prepared.placement, is_held=False, is_cut=False,
            loss=0.0, seconds=prepared.seconds,
        )  # fmt: skip


def encoded(
    encoder: CausalEncoder, prepared: Iterable[tuple[T, Prepared]], skipped: int
) -> Iterator[tuple[T, Encoded]]:
    """Encode prepared frames, of which some are not solved.

    Of frames that follow one another `skipped` between two are left to the landmark estimate,
    corrected as the solved ones on both sides say; they come out with the next solved one.

    Args:
        encoder: whose state goes on.
        prepared: pairs of anything that belongs to a frame, and the frame.
        skipped: frames between two that are solved.
    """
    waiting: list[tuple[T, Prepared]] = []
    solved = 0  # in a row
    for item, one in prepared:
        if solved > 1 and one.is_followed and len(waiting) < skipped:
            waiting.append((item, one))
            continue
        if not one.is_followed:
            yield from ((at, encoder.solve(left)) for at, left in waiting)
            waiting, solved = [], 0
        done = encoder.solve(one)
        for number, (at, left) in enumerate(waiting, start=1):
            yield at, encoder.between(left, number / (len(waiting) + 1))
        waiting = []
        solved = solved + 1 if one.crop is not None else 0
        yield item, done
    yield from ((at, encoder.solve(left)) for at, left in waiting)
