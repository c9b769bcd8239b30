"""Orientation of decoded pictures: display matrices, by which EXIF and containers turn them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

Orientation = tuple[bool, bool, bool]
"""Transpose, flip rows, flip columns, in this order."""

UPRIGHT: Final[Orientation] = (False, False, False)
# FFmpeg knows more types of side data than the installed PyAV may; a frame with one of them raises
# as soon as PyAV lists its side data, so those are deleted first. FFmpeg 8.1 ends at 31.
UNKNOWN_TYPES: Final = sorted(set(range(64)) - {known.value for known in Type})


class SideData:
    """Side data of the frames of one stream, of the types that PyAV knows."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._shape: tuple[int, int, str] | None = None

    def find(self, decoded: Any, *names: str) -> dict[str, bytes]:
        """Return the payloads of a frame's side data by type; absent types are left out.

        Args:
            decoded: a PyAV video frame, which is not changed.
            names: members of PyAV's `Type`, such as `DISPLAYMATRIX`.
        """
        shape = (decoded.width, decoded.height, decoded.format.name)
        if shape != self._shape:
            self._graph, self._shape = _stripping_graph(decoded), shape
        self._graph.vpush(decoded)
        stripped = self._graph.vpull()
        return {
            side.type.name: bytes(side) for side in stripped.side_data if side.type.name in names
        }


def _stripping_graph(decoded: Any) -> Any:
    """Return a filter graph that passes frames on without side data of unknown types."""
    graph = av.filter.Graph()
    last = graph.add_buffer(
        width=decoded.width, height=decoded.height, format=decoded.format,
        time_base=Fraction(decoded.time_base or 1),
    )  # fmt: skip
    for number in UNKNOWN_TYPES:
        following = graph.add("sidedata", f"mode=delete:type={number}")
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def display_orientation(matrix: bytes | None) -> Orientation:
    """Return (transpose, flip rows, flip columns) that make a stored picture upright.

    Args:
        matrix: the nine 16.16 numbers of a display matrix, little-endian; None if there is none.

    Only quarter turns and mirrors are honoured; other angles are left alone, as players do.
    Source: ISO/IEC 14496-12, track header matrix; the matrix maps (x, y) to (ax + cy, bx + dy).
    """
    if matrix is None:
        return UPRIGHT
    numbers = np.frombuffer(matrix, dtype="<i4")
    a, b, c, d = (int(np.sign(numbers[i])) for i in (0, 1, 3, 4))
    if abs(int(numbers[0])) > abs(int(numbers[1])):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def make_upright(picture: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Apply a display orientation to `[H, W, 3]`."""
    transpose, flip_rows, flip_columns = orientation
    if transpose:
        picture = picture.transpose(1, 0, 2)
    if flip_rows:
        picture = picture[::-1]
    if flip_columns:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
