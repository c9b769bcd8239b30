"""Which pixels of the crops show the face's surroundings: those within the frame, not covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.decoder.placement import frame_to_crop, transform_points
from sglat.encoder.align import Alignment
from sglat.encoder.crops import inside_mask
from sglat.encoder.stages import Stage, Task
from sglat.encoder.track import Track
from sglat.networks.face_points import FACE_OVAL
from sglat.networks.faces import PARSING_CLASSES

SIDE: Final = 32  # cells a side, in which cover is judged and stored
BATCH: Final = 8
COVERING: Final = tuple(PARSING_CLASSES.index(name) for name in ("background", "cloth"))


@dataclass(frozen=True, kw_only=True)
class VisibleConfig(Stage["Visible"]):
    """What counts as covered."""

    name = "visible"
    phase = "align"
    networks = ("faces",)

    confident: float = 0.9
    """Probability of a covering class from which a cell is covered."""
    oval: float = 0.8
    """Size of the face's oval in which cover is looked for, relative to the landmarks'."""
    least_share: float = 0.1
    """Share of the oval from which a frame counts as covered."""

    def run(self, task: Task, track: Track, aligned: Alignment) -> Visible:
        """Parse the crops and keep the covered cells of each frame."""
        store = task.open()
        if not store.is_done:
            for first in range(store.rows, len(track), BATCH):
                rows = np.arange(first, min(first + BATCH, len(track)))
                packed = np.zeros((len(rows), SIDE * SIDE // 8), np.uint8)
                if (good := ~track.held[rows]).any():
                    packed[good] = self._covered(task, track, aligned, rows[good])
                store.append({"covered": packed})
            store.finish()
        covered = np.unpackbits(store.read("covered"), axis=1).astype(bool)
        return Visible(
            placement=aligned.placement,
            leaving=track.leaving,
            size=(track.width, track.height),
            covered=covered.reshape(-1, SIDE, SIDE),
        )

    @torch.no_grad()
    def _covered(
        self, task: Task, track: Track, aligned: Alignment, rows: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Return the covered cells of frames, `[n, SIDE * SIDE / 8]` packed."""
        crops = aligned.crops.tensor(rows).to(task.bundle.device)
        classes = task.bundle.faces.parse(crops)[:, list(COVERING)].sum(1, keepdim=True)
        found = torch.nn.functional.adaptive_avg_pool2d(classes, SIDE)[:, 0].cpu().numpy()
        points = transform_points(
            frame_to_crop(aligned.placement[rows]), track.points[rows].astype(np.float64)
        )
        face = np.stack([_oval(one[list(FACE_OVAL)], self.oval) for one in points])
        covered = (found > self.confident) & face
        share = covered.sum((1, 2)) / np.maximum(face.sum((1, 2)), 1)
        covered[share < self.least_share] = False
        return np.packbits(covered.reshape(len(rows), -1), axis=1)


@dataclass(frozen=True, kw_only=True)
class Visible:
    """What the losses compare in each frame."""

    placement: NDArray[np.float64]
    """`[T, 4]`."""
    leaving: NDArray[np.bool_]
    """`[T]` frames that show the face in part; the others may be mirrored beyond the frame."""
    size: tuple[int, int]
    """Of the frame, width and height in pixels."""
    covered: NDArray[np.bool_]
    """`[T, SIDE, SIDE]` cells of the crops before which something else is."""

    @property
    def is_partial(self) -> NDArray[np.bool_]:
        """`[T]` frames that show the face in part."""
        partial: NDArray[np.bool_] = self.leaving | self.covered.any((1, 2))
        return partial

    def masks(self, rows: NDArray[np.int64] | list[int], side: int) -> Tensor | None:
        """Return masks `[n, 1, side, side]`, 1 where visible; None if all of all frames is."""
        numbers = np.asarray(rows)
        covered = self.covered[numbers]
        if not self.leaving[numbers].any() and not covered.any():
            return None
        masks = np.stack(
            [
                inside_mask(self.placement[n], self.size, side)
                if self.leaving[n]
                else np.ones((side, side), bool)
                for n in numbers.tolist()
            ]
        )
        cells = (np.arange(side) * SIDE) // side
        masks &= ~covered[:, cells][:, :, cells]
        return torch.from_numpy(masks[:, None].astype(np.float32))

    def messages(self) -> list[str]:
        """Return messages for the user, one line each."""
        count = int(self.covered.any((1, 2)).sum())
        return [f"face covered in {count} frames: what covers it is left out"] if count else []


def _oval(points: NDArray[np.float64], scale: float) -> NDArray[np.bool_]:
    """Return the cells within the ellipse about landmarks `[N, 2]` in crop units."""
    low, high = points.min(axis=0), points.max(axis=0)
    radii = np.maximum(scale * (high - low) / 2, 1e-6)
    axis = (np.arange(SIDE) + 0.5) / SIDE
    x, y = np.meshgrid(axis, axis)
    centre = (low + high) / 2
    return np.asarray(((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 < 1)
