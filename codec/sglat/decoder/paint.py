"""Where and when rendered crops are pasted into a backdrop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.groups import join_motion
from sglat.bitstream.reader import open_reader
from sglat.bitstream.records import FRAME_CUT, FRAME_HELD
from sglat.decoder.backdrop import Backdrop
from sglat.decoder.composite import Compositor, Pasted, unpasted
from sglat.decoder.placement import CENTRE_X, CENTRE_Y, SIZE
from sglat.errors import UsageError

_Spot: TypeAlias = tuple[NDArray[np.float64] | None, bool]
# where a face goes, None for nowhere; whether it continues no earlier frame


@dataclass(frozen=True, kw_only=True)
class FaceTrack:
    """Where a face lies in a video over time."""

    seconds: NDArray[np.float64]
    """Rising time of each frame, `[T]`."""
    placement: NDArray[np.float64]
    """Centre x, centre y, size (pixels), roll (degrees), `[T, 4]`."""
    is_held: NDArray[np.bool_]
    """No face was found, `[T]`."""
    is_cut: NDArray[np.bool_]
    """The video cuts before the frame, `[T]`."""
    size: tuple[int, int]
    """Width and height that the placement refers to."""

    def row(self, seconds: Fraction) -> int:
        """Return the number of the frame on screen at a time."""
        # half a millisecond of slack: containers round time stamps
        at = int(np.searchsorted(self.seconds, float(seconds) + 5e-4, side="right")) - 1
        return max(0, at)

    def is_restarted(self, before: int, row: int) -> bool:
        """Whether a cut or a frame without a face lies between two frames."""
        passed = slice(before + 1, row + 1)
        return bool(self.is_cut[passed].any() or self.is_held[before:row].any())


def read_track(path: Path) -> FaceTrack:
    """Return where the face lies by the placement of a `.sglat` file.

    Raises:
        FormatError: the bytes break the specification.
        UsageError: no such file; it has no placement.
    """
    with open_reader(path) as reader:
        header, groups = reader.header, reader.read_all()
    placed = [group.placement.dequantize() for group in groups if group.placement is not None]
    if header.source_size is None or not groups or len(placed) != len(groups):
        raise UsageError("no-placement", f"{path} does not contain where its face lies")
    motion = join_motion([group.motion for group in groups], header)
    count = len(motion.values)
    flags = np.zeros(count, np.uint8) if motion.flags is None else motion.flags
    return FaceTrack(
        seconds=(motion.stamps(header) * float(header.time_base)).astype(np.float64),
        placement=np.concatenate(placed).astype(np.float64),
        is_held=flags & FRAME_HELD > 0,
        is_cut=flags & FRAME_CUT > 0,
        size=header.source_size,
    )


def agreement(one: FaceTrack, other: FaceTrack) -> float:
    """Return how far two tracks lie apart: the median distance of their centres, and the median
    difference of their sizes, in face sizes; infinite without a common frame. The first is scaled
    to the frames of the other one, which gives the times."""
    rows = np.flatnonzero(~other.is_held & (other.seconds <= one.seconds[-1] + 0.1))
    pairs = [(one.row(Fraction(float(other.seconds[row]))), row) for row in rows]
    pairs = [(mine, row) for mine, row in pairs if not one.is_held[mine]]
    if not pairs:
        return float("inf")
    mine = np.stack([fit_placement(one.placement[at], one.size, other.size) for at, _ in pairs])
    theirs = other.placement[[row for _, row in pairs]]
    apart = np.hypot(*(mine - theirs)[:, :SIZE].T) / theirs[:, SIZE]
    sizes = np.abs(np.log(mine[:, SIZE] / theirs[:, SIZE]))
    return float(max(np.median(apart), np.median(sizes)))


class Painter:
    """Pastes rendered crops into the backdrop's frames; those without a face stay as they are.

    Without a track the face lies where the file has it; `source_size` is the width and height that
    the file's placement refers to.
    """

    def __init__(
        self,
        backdrop: Backdrop,
        compositor: Compositor,
        track: FaceTrack | None = None,
        *,
        source_size: tuple[int, int] | None = None,
    ) -> None:
        self.backdrop = backdrop
        self.compositor = compositor
        self.track = track
        self.source_size = source_size
        self._before: int | None = None  # row of the track
        self._is_after_held = False

    def side(self, placement: NDArray[np.floating] | None) -> float:
        """Return the largest side in pixels that the pasted crops have in the backdrop.

        Args:
            placement: where the file has some frames, `[N, 4]`; None where it does not.
        """
        placement, size = (
            (placement, self.source_size)
            if self.track is None
            else (self.track.placement, self.track.size)
        )
        if placement is None or size is None or not len(placement):
            return 0.0
        return float(fit_placement(placement, size, self.backdrop.size)[:, SIZE].max())

    def paint(
        self,
        pictures: Tensor,
        seconds: Sequence[Fraction],
        placement: NDArray[np.floating] | None,
        flags: NDArray[np.uint8],
    ) -> list[Pasted]:
        """Return full frames of consecutive crops `[N, 3, R, R]` at their times, with the file's
        placement `[N, 4]`, None where it has none, and flags `[N]`."""
        spots = []
        for at, time in enumerate(seconds):
            if self.track is not None:
                spots.append(self._tracked(self.track, time))
            else:
                spots.append(self._stored(None if placement is None else placement[at], flags[at]))
        restarts = [is_restart for _, is_restart in spots]
        masks = self.compositor.masks(pictures, restarts=restarts)
        shown = []
        for at, (spot, is_restart) in enumerate(spots):
            frame = self.backdrop.frame(seconds[at])
            if spot is None:
                shown.append(unpasted(frame))
                continue
            shown.append(
                self.compositor.paste(frame, pictures[at], masks[at], spot, is_restart=is_restart)
            )
        return shown

    def _tracked(self, track: FaceTrack, time: Fraction) -> _Spot:
        row, before = track.row(time), self._before
        self._before = row
        is_restart = before is not None and track.is_restarted(before, row)
        if track.is_held[row]:
            return None, is_restart
        return fit_placement(track.placement[row], track.size, self.backdrop.size), is_restart

    def _stored(self, placement: NDArray[np.floating] | None, flags: np.uint8) -> _Spot:
        is_held = bool(flags & FRAME_HELD) and self.backdrop.has_face
        is_restart = self._is_after_held or bool(flags & FRAME_CUT)
        self._is_after_held = is_held
        if placement is None or is_held:
            return None, is_restart
        return fit_placement(placement, self.source_size, self.backdrop.size), is_restart


def fit_placement(
    placement: NDArray[np.floating],
    source_size: tuple[int, int] | None,
    size: tuple[int, int],
) -> NDArray[np.float64]:
    """Return placements `[..., 4]` (centre x, y, size in pixels, roll in degrees) for frames of
    another size, width and height, than the source's; None: of the same size."""
    fitted = np.asarray(placement, dtype=np.float64).copy()
    if source_size is None:
        return fitted
    across, down = size[0] / source_size[0], size[1] / source_size[1]
    fitted[..., CENTRE_X] *= across
    fitted[..., CENTRE_Y] *= down
    fitted[..., SIZE] *= (across * down) ** 0.5
    return fitted
