"""The people in a video: faces on sampled frames, joined over time and ranked by size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.encoder.crops import crop_picture, landmark_placement
from sglat.encoder.stages import Stage, Task
from sglat.encoder.workfile import Store
from sglat.errors import FaceError
from sglat.media.reader import Clip, VideoReader
from sglat.networks.faces import FaceAnalysis, FaceBox
from sglat.networks.pixels import from_pixels

WIDTH: Final = 512  # of stored identity vectors; shorter ones are filled up with zeros
THUMBNAIL: Final = 24  # pixels a side; small enough that motion inside a shot does not look cut
GALLERY: Final = 16  # vectors of a stretch that are compared
LONG_GALLERY: Final = 64  # of all stretches of one person
RECENT: Final = 8  # changes of the picture whose median is its usual change

Boxes = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PeopleConfig(Stage["People"]):
    """How the people of a video are found."""

    name = "people"
    version = 3
    networks = ("faces",)

    resolution: int
    """Side of the crops that are compared, in pixels."""
    sample_seconds: float = 0.25
    """Time between two sampled frames; frames where the picture jumps are sampled too."""
    least_samples: int = 12
    """Short clips are sampled more often, down to every frame, to have this number."""
    jump_levels: float = 5.0
    """Change of the thumbnail, in grey levels, below which the picture does not jump."""
    jump_ratio: float = 3.0
    """The same in multiples of the usual change."""
    same: float = 0.55
    """Cosine of two identity vectors from which two stretches show one person. On ten clips with
    whole faces, samples of different clips reached 0.48, and each sample's best match within its
    own clip was 0.67 or more."""
    stay: float = 0.6
    """Cosine to the sample before, below which a face at the same place is another one's where the
    picture jumps. Samples of one person 0.3 s apart had 0.85 and more."""
    apart: float = 0.15
    """Difference of cosines from which a face at one person's place is the other's."""
    overlap: float = 0.2
    """Intersection over union of two boxes of one face in neighbouring samples."""
    patience: int = 4
    """Samples for which a face may be missed at its place."""

    def run(self, task: Task, path: Path | Clip) -> People:
        """See `find_people`."""
        device = task.bundle.device
        return find_people(path, task.bundle.faces, task.open(), self, device, task.tell)


@dataclass(frozen=True, kw_only=True)
class SeenFace:
    """One person's face on the sampled frames that show it."""

    frames: NDArray[np.int64]
    """`[S]`."""
    boxes: Boxes
    """`[S, 4]` left, top, right, bottom in pixels."""
    vectors: NDArray[np.float32]
    """Identity vectors, `[S, D]`."""
    parts: NDArray[np.float64]
    """`[S]` share of the clip's frames up to the next sample."""

    @property
    def share(self) -> float:
        """Of the clip's frames."""
        return float(self.parts.sum())

    @property
    def side(self) -> float:
        """Mean side of the face in pixels."""
        spans = self.boxes[:, 2:] - self.boxes[:, :2]
        return float(np.sqrt(spans.prod(axis=1)).mean())

    @property
    def weight(self) -> float:
        """Square root of the area over the whole clip."""
        areas = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        return float(np.sqrt(areas @ self.parts))


@dataclass(frozen=True, kw_only=True)
class People:
    """All people of a video, the largest over the clip first."""

    samples: NDArray[np.int64]
    """Sampled frames."""
    jumps: NDArray[np.bool_]
    """`[S]` which of them begin with a jump of the picture."""
    faces: list[SeenFace]
    time: list[Fraction]
    """Of the sampled frames, in seconds."""

    def table(self) -> list[dict[str, Any]]:
        """Return number, first and last second, mean side in pixels and share of the frames."""
        seconds = dict(zip(self.samples.tolist(), self.time, strict=True))
        return [
            {
                "face": number,
                "from_seconds": round(float(seconds[int(face.frames[0])]), 2),
                "to_seconds": round(float(seconds[int(face.frames[-1])]), 2),
                "side_pixels": round(face.side),
                "share": round(face.share, 3),
            }
            for number, face in enumerate(self.faces, 1)
        ]

    def like(self, vector: NDArray[np.float32], least: float) -> int:
        """Return the number of the face nearest to an identity vector `[D]`.

        Raises:
            FaceError: no face reaches the least cosine.
        """
        width = len(vector)
        found = [float((face.vectors[:, :width] @ vector).max()) for face in self.faces]
        best = int(np.argmax(found))
        if found[best] < least:
            raise FaceError(
                "no-such-face",
                f"nobody in the video is like the picture: the nearest of {len(found)} has a "
                f"similarity of {found[best]:.2f}; see --list-faces",
            )
        return best + 1


def find_people(
    path: Path | Clip,
    faces: FaceAnalysis,
    store: Store,
    config: PeopleConfig,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> People:
    """Find everybody in a video; frames stream through, and interrupted work continues.

    Args:
        path: the video.
        faces: detector, landmarks and identity network.
        store: one row for each face of a sampled frame, or one where there is none.
        config: sampling and limits.
        device: of the identity network.
        progress: called with frames done and frames in all, 0 where unknown.
    """
    if not store.is_done:
        _scan(path, faces, store, config, device, progress)
    rows = {name: store.read(name) for name in ("frame", "jump", "score", "box", "vector", "time")}
    samples, first = np.unique(rows["frame"], return_index=True)
    facts = store.result()[1]
    scale = Fraction(facts["time_base"])
    parts = np.diff(samples, append=facts["frames"]) / facts["frames"]
    return People(
        samples=samples,
        jumps=rows["jump"][first],
        faces=_ranked(rows, samples, parts, rows["jump"][first], config),
        time=[int(ticks) * scale for ticks in rows["time"][first]],
    )


def identity_vector(
    faces: FaceAnalysis, picture: NDArray[np.uint8], box: FaceBox, side: int, device: torch.device
) -> NDArray[np.float32]:
    """Return the identity vector `[D]` of the face in a box."""
    return face_vector(faces, picture, faces.landmarks(picture, box).points, side, device)


def face_vector(
    faces: FaceAnalysis,
    picture: NDArray[np.uint8],
    points: NDArray[np.float32],
    side: int,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the identity vector `[D]` of a face by its landmarks `[478, 2]`."""
    placement = landmark_placement(points[None], blink=np.zeros(1, bool))[0]
    crop = crop_picture(picture, placement, side)
    with torch.no_grad():
        vector = faces.embed(from_pixels(crop[None]).to(device))[0]
    return np.asarray(vector.float().cpu().numpy())


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a coarse grey picture `[24, 24]` by averaging a sparse grid of pixels."""
    height, width = picture.shape[:2]
    rows = np.linspace(0, height - 1, THUMBNAIL * 4).astype(int)
    columns = np.linspace(0, width - 1, THUMBNAIL * 4).astype(int)
    sparse = picture[rows][:, columns].astype(np.float32).mean(axis=2)
    return np.asarray(sparse.reshape(THUMBNAIL, 4, THUMBNAIL, 4).mean(axis=(1, 3)))


def overlap_of(first: Boxes, second: Boxes) -> float:
    """Return intersection over union of two boxes `[4]`."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    areas = sum(float((box[2:] - box[:2]).prod()) for box in (first, second))
    return shared / max(areas - shared, 1e-9)


def _scan(
    path: Path | Clip,
    faces: FaceAnalysis,
    store: Store,
    config: PeopleConfig,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    done = int(store.read("frame", store.rows - 1)[0]) if store.rows else -1
    count = 0

    def samples(reader: VideoReader) -> Iterator[list[dict[str, Any]]]:
        nonlocal count
        expected = reader.info.expected_frames
        usual = round(config.sample_seconds * reader.info.frame_rate)
        every = max(1, min(usual, expected // config.least_samples if expected else usual))
        for index, pts, picture, is_jump in _watched(reader, config):
            count = index + 1
            if index <= done or not (is_jump or index % every == 0):
                continue
            yield _seen(index, pts, picture, is_jump, faces, config.resolution, device)
            if progress is not None:
                progress(count, max(expected, count) if expected else 0)

    with VideoReader(path) as reader:
        store.extend(samples(reader))
        store.finish(facts={"time_base": str(reader.time_base), "frames": count})


def _watched(
    reader: VideoReader, config: PeopleConfig
) -> Iterator[tuple[int, int, NDArray[np.uint8], bool]]:
    """Yield index, time stamp and picture of each frame, and whether the picture jumps there."""
    last: NDArray[np.float32] | None = None
    recent: deque[float] = deque(maxlen=RECENT)
    for frame in reader:
        small = thumbnail(frame.picture)
        change = 0.0 if last is None else float(np.abs(small - last).mean())
        usual = float(np.median(recent)) if recent else 0.0
        is_jump = change > max(config.jump_levels, config.jump_ratio * usual)
        recent.append(change)
        last = small
        yield frame.index, frame.pts, frame.picture, is_jump


def _seen(
    index: int,
    pts: int,
    picture: NDArray[np.uint8],
    is_jump: bool,
    faces: FaceAnalysis,
    side: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return the rows of a sampled frame, one a face, or an empty one."""
    common = {"frame": np.int64(index), "time": np.int64(pts), "jump": np.bool_(is_jump)}
    empty = {"score": np.float32(0), "box": np.zeros(4, np.float32),
             "vector": np.zeros(WIDTH, np.float16)}  # fmt: skip
    rows = []
    for box in faces.detect(picture):
        vector = identity_vector(faces, picture, box, side, device)
        filled = np.pad(vector, (0, WIDTH - len(vector))).astype(np.float16)
        place = np.array([box.left, box.top, box.right, box.bottom], np.float32)
        rows.append({**common, "score": np.float32(box.score), "box": place, "vector": filled})
    return rows or [{**common, **empty}]


def _ranked(
    rows: dict[str, NDArray[Any]],
    samples: NDArray[np.int64],
    parts: NDArray[np.float64],
    jumps: NDArray[np.bool_],
    config: PeopleConfig,
) -> list[SeenFace]:
    """Return the people behind the rows, ranked; `parts` `[S]` as in `SeenFace`, of all samples."""
    order = dict(zip(samples.tolist(), range(len(samples)), strict=True))
    vectors = rows["vector"].astype(np.float32)
    groups = _joined(_stretches(rows, vectors, order, jumps, config), rows, vectors, config)
    found = [
        SeenFace(
            frames=rows["frame"][group], boxes=rows["box"][group], vectors=vectors[group],
            parts=parts[np.searchsorted(samples, rows["frame"][group])],
        )
        for group in groups
    ]  # fmt: skip
    if not found:
        return []
    found.sort(key=lambda face: -face.weight)
    best = found[0]
    # Of people who never meet, the first is taken unless a later one is much larger or stays longer
    alone = [
        face
        for face in found
        if face.weight * 1.5 > best.weight and not np.isin(face.frames, best.frames).any()
    ]
    first = min([best, *alone], key=lambda face: int(face.frames[0]))
    rest = [face for face in found if face is not first]
    if len(samples) >= 6:  # a single find on a wall is nobody
        rest = [f for f in rest if len(f.frames) > 1 or f.weight > 0.3 * best.weight]
    return [first, *rest]


def _stretches(
    rows: dict[str, NDArray[Any]],
    vectors: NDArray[np.float32],
    order: dict[int, int],
    jumps: NDArray[np.bool_],
    config: PeopleConfig,
) -> list[list[int]]:
    """Return rows that follow each other at one place, without a jump to another identity."""
    stretches: list[list[int]] = []
    taken: set[tuple[int, int]] = set()  # stretch and sample
    for row in np.flatnonzero(rows["score"] > 0).tolist():
        sample = order[int(rows["frame"][row])]
        best, reached = -1, config.overlap
        for number, stretch in enumerate(stretches):
            last = stretch[-1]
            before = order[int(rows["frame"][last])]
            if (number, sample) in taken or not 0 < sample - before <= config.patience:
                continue
            is_jump = bool(jumps[before + 1 : sample + 1].any())
            likeness = float(vectors[last] @ vectors[row])
            if is_jump and likeness < config.stay:
                continue
            if _is_elsewhere(likeness, row, number, stretches, vectors, config):
                continue
            overlap = overlap_of(rows["box"][last], rows["box"][row])
            if overlap >= reached:
                best, reached = number, overlap
        if best < 0:
            best = len(stretches)
            stretches.append([])
        stretches[best].append(row)
        taken.add((best, sample))
    return stretches


def _is_elsewhere(
    likeness: float,
    row: int,
    number: int,
    stretches: list[list[int]],
    vectors: NDArray[np.float32],
    config: PeopleConfig,
) -> bool:
    """Whether a row that has some likeness to the end of one stretch shows the person of another
    one, as where two people change places."""
    ends = [stretch[-1] for at, stretch in enumerate(stretches) if at != number]
    if likeness >= config.stay or not ends:
        return False
    best = float((vectors[ends] @ vectors[row]).max())
    return best >= config.same and best > likeness + config.apart


def some_of(vectors: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Return at most so many vectors `[n, D]`, evenly spread."""
    return vectors[:: -(-len(vectors) // most)]


def _joined(
    stretches: list[list[int]],
    rows: dict[str, NDArray[Any]],
    vectors: NDArray[np.float32],
    config: PeopleConfig,
) -> list[list[int]]:
    """Join stretches of one person; nobody is twice in a frame."""
    people: list[list[int]] = []
    for stretch in sorted(stretches, key=len, reverse=True):
        some = some_of(vectors[stretch], GALLERY)
        likeness = [
            -1.0
            if np.isin(rows["frame"][stretch], rows["frame"][group]).any()
            else float((some @ some_of(vectors[group], LONG_GALLERY).T).max())
            for group in people
        ]
        if likeness and max(likeness) >= config.same:
            people[int(np.argmax(likeness))].extend(stretch)
        else:
            people.append(list(stretch))
    return [sorted(group, key=lambda row: int(rows["frame"][row])) for group in people]
