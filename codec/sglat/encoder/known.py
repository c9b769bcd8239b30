"""A person who is known from an earlier file, so that a clip needs motion alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.reader import open_reader
from sglat.bitstream.records import Identity, IdentityReference
from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Synthesizer, retarget
from sglat.encoder.align import Alignment
from sglat.encoder.choose_frames import spread_frames
from sglat.encoder.losses import shown_through
from sglat.encoder.person import TunedPerson
from sglat.encoder.solve_motion import MotionProblem, shut_frames
from sglat.encoder.stages import Stage, Task
from sglat.encoder.start_motion import StartMotion, comparable, corrected_motion
from sglat.encoder.track import Track
from sglat.encoder.visible import Visible
from sglat.errors import UsageError
from sglat.files import naming
from sglat.networks.faces import FaceBox, FaceLandmarks
from sglat.networks.pixels import to_pixels

TYPICAL: Final = 16
"""Most motions of a known person at which Jacobians are taken."""
SAMPLES: Final = 24
"""Frames of a clip that are compared with the known person."""
LIKE: Final = 0.45
"""Identity cosine below which a clip shows somebody else. On six clips, unseen parts of one person
had 0.79 and more, in half the light 0.65; other people had 0.41 at most."""
CHANGED: Final = 0.12
"""Perceptual distance of a clip to the known person from which looks have changed. Unseen parts of
six clips had 0.019 to 0.109, in half the light 0.146 to 0.52."""
CHANGED_RATIO: Final = 4.0
"""The same in multiples of the distance that enrolling reached, for a person enrolled roughly."""
DISTANCE_SETTING: Final = "distance"
"""Key in the settings of an enrolled file."""
_CROP_FACE: Final = FaceBox(left=0.2, top=0.2, right=0.8, bottom=0.95, score=1.0)
"""Where the face is in an aligned crop, in crop units."""


@dataclass(frozen=True, kw_only=True)
class KnownPerson(TunedPerson):
    """A person of a file, and motions by which the file knows them."""

    typical: Tensor
    """`[K, 34]`, the most different ones first, the neutral among them."""
    reference: IdentityReference | None
    """Of the identity's own file; None if it was refined since."""
    tuned: Synthesizer
    """With the person's deltas, at the base resolution."""
    whole: Identity
    """With the layers above the base resolution."""
    resolution: int
    """Of the file."""
    distance: float | None = None
    """Perceptual distance that enrolling reached, where the file has it."""


def known_person(path: Path, bundle: Bundle, *, count: int = TYPICAL) -> KnownPerson:
    """Read a person from a file with an identity; its own motion, if any, tells what is typical.

    Args:
        path: a file written by enrolling, a detached identity, or any file with an identity.
        bundle: at its base resolution.
        count: most typical motions.

    Raises:
        BundleMismatchError: the file was made with other weights.
        FormatError: any code.
        UsageError: `no-identity` if the file only refers to one.
    """
    with open_reader(path) as reader, naming(path):
        header, identity, sha256 = reader.header, reader.identity, reader.identity_sha256
        if identity is None or sha256 is None:
            raise UsageError(
                "no-identity", f"expected a file with an identity, found a reference in {path}"
            )
        whole = Synthesizer.of(bundle.of_file(header))
        motion = [group.motion.dequantize() for group in reader.groups()]
        driver = reader.motion_neutral
    person = whole.person(identity)
    tuned = whole.tuned(identity.weight_deltas()).up_to(bundle.resolution)
    rows = person.neutral[None]
    if motion:
        own = retarget(
            torch.from_numpy(np.concatenate(motion)).to(rows),
            puppet=person.neutral,
            driver=None if driver is None else torch.from_numpy(driver.copy()).to(rows),
            transfer="relative",
        )
        rows = torch.cat([rows, own])
        is_used = torch.ones(len(rows), dtype=torch.bool)
        rows = rows[spread_frames(comparable(rows).cpu(), count, 0, is_used)]
    return KnownPerson(
        identity=identity,
        whole=identity,
        person=person,
        synthesizer=whole.up_to(bundle.resolution),
        weights={name: value.detach() for name, value in tuned.generator.named_parameters()},
        typical=rows,
        tuned=tuned,
        reference=IdentityReference(
            sha256=sha256, hint=path.name.encode("utf-8", "replace").decode()
        ),
        resolution=header.resolution,
        distance=_stored_distance(header.settings),
    )


def _stored_distance(settings: dict[str, str]) -> float | None:
    try:
        found = float(settings.get(DISTANCE_SETTING, ""))
    except ValueError:
        return None
    return found if 0 < found < 1 else None


@torch.no_grad()
def rendered_faces(known: KnownPerson, bundle: Bundle) -> list[FaceLandmarks]:
    """Return what the landmark network reads in renderings of the typical motions, in pixels."""
    pictures = to_pixels(known.render(known.typical))
    side = pictures.shape[1]
    sides = ("left", "top", "right", "bottom")
    box = replace(_CROP_FACE, **{name: side * getattr(_CROP_FACE, name) for name in sides})
    return [bundle.faces.landmarks(np.ascontiguousarray(picture), box) for picture in pictures]


def landmarks_of(faces: Sequence[FaceLandmarks], bundle: Bundle) -> NDArray[np.float32]:
    """Return landmarks of rendered faces in crop units, `[K, 478, 2]`."""
    return np.stack([one.points for one in faces]) / np.float32(bundle.resolution)


@torch.no_grad()
def estimates_of(faces: Sequence[FaceLandmarks], bundle: Bundle) -> Tensor | None:
    """Return the motion estimates of rendered faces, `[K, 34]`; None for a bundle without an
    estimator.

    The estimate differs from the motion by a shift and more that are the person's own (see
    `corrected_motion`).
    """
    if not bundle.has("estimator"):
        return None
    points = torch.from_numpy(landmarks_of(faces, bundle))
    shapes = torch.from_numpy(np.stack([one.blendshapes for one in faces]).astype(np.float32))
    pose = torch.tensor([[one.yaw_degrees, one.pitch_degrees] for one in faces])
    inputs = (values.to(bundle.device) for values in (points, shapes, pose))
    return torch.cat([pose, bundle.module("estimator")(*inputs).cpu()], 1)


@dataclass(frozen=True, kw_only=True)
class KnownProblemConfig(Stage[MotionProblem]):
    """How the motion of a known person is set up."""

    name = "known-problem"
    phase = "jacobian"
    networks = ("faces", "estimator")

    correction_noise: float = 0.3
    """See `corrected_motion`."""

    def run(
        self,
        task: Task,
        track: Track,
        aligned: Alignment,
        visible: Visible,
        start: StartMotion,
        known: KnownPerson,
    ) -> MotionProblem:
        """Correct the initial motion by what the estimator reads in renderings of the person."""
        bundle, motion, typical = task.bundle, start.motion, known.typical.cpu()
        estimates = estimates_of(rendered_faces(known, bundle), bundle)
        if estimates is not None:
            rows = list(range(len(typical)))
            both = torch.cat([estimates, motion])
            corrected = corrected_motion(both, rows, typical, self.correction_noise)
            motion = corrected[len(typical) :]

        def masks(rows: NDArray[np.int64]) -> Tensor | None:
            found = visible.masks(rows, bundle.resolution)
            return None if found is None else found.to(bundle.device)

        return MotionProblem(
            start=motion.to(bundle.device),
            tuned=known.typical,
            points=torch.from_numpy(start.points),
            breaks=track.breaks,
            shown=track.shown,
            targets=lambda rows: aligned.crops.tensor(rows).to(bundle.device),
            masks=masks,
            shut=shut_frames(track),
        )


@torch.no_grad()
def looks_of(known: KnownPerson, bundle: Bundle) -> Tensor:
    """Return identity vectors of renderings of some typical motions, `[K, D]`."""
    return bundle.faces.embed(known.render(known.typical[:8]).clamp(-1, 1))


@torch.no_grad()
def likeness(known: KnownPerson, bundle: Bundle, track: Track, aligned: Alignment) -> float:
    """Return the mean identity cosine of some frames of a clip to the person's typical faces."""
    rows = np.flatnonzero(~track.held)
    rows = rows[np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(int)]
    seen = bundle.faces.embed(aligned.crops.tensor(rows).to(bundle.device))
    return float((seen @ looks_of(known, bundle).T).max(1).values.mean())


def unlike(cosine: float) -> str:
    """Return what is said of a clip that does not look like the known person."""
    return (
        f"the clip seems to show somebody else than the identity: identity cosine {cosine:.2f}, "
        f"{LIKE} or more expected; enrol this person with sgl-enrol"
    )


@torch.no_grad()
def picture_distance(
    bundle: Bundle,
    person: TunedPerson,
    problem: MotionProblem,
    rows: Sequence[int] | NDArray[np.int64],
    motion: Tensor,
) -> float:
    """Return the mean perceptual distance of rendered frames to the camera's.

    Args:
        bundle: its perceptual network is used.
        person: rendered at the base resolution.
        problem: of the clip.
        rows: numbers of frames, of which `SAMPLES` at most are compared.
        motion: of these frames, `[n, 34]`.
    """
    some = np.linspace(0, len(rows) - 1, min(SAMPLES, len(rows))).astype(int)
    distances = []
    for part in np.array_split(some, -(-len(some) // 8)):
        numbers = np.asarray(rows)[part]
        wanted, masks = problem.targets(numbers), problem.masks(numbers)
        shown = person.render(motion[torch.from_numpy(part).to(motion.device)]).clamp(-1, 1)
        if masks is not None:
            shown = shown_through(shown, wanted, masks)
        network = bundle.perceptual
        distances.append(network.distance(network.features(shown), network.features(wanted)))
    return float(torch.cat(distances).mean())
