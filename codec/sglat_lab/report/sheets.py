"""Contact sheets of decoded clips: what moves most is always among the frames shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.media.pictures import encode_png
from sglat_lab.measure.face_signals import Signals, gaze
from sglat_lab.measure.motion_figures import eye_opening, mouth_opening

Pictures = NDArray[np.uint8]
EVEN_FRAMES: Final = 4  # evenly spread ones beside the extremes
HEADER: Final = 16  # pixels above a column, for its name


def telling_frames(signals: Signals) -> list[tuple[str, int]]:
    """Return names and numbers of frames to look at, by what the source does.

    Args:
        signals: of the source.
    """
    found = np.flatnonzero(signals.is_found)
    seen = signals.cut(found)
    tracks: dict[str, NDArray[np.floating]] = {
        "eyes shut": -eye_opening(seen.points),
        "eyes wide": eye_opening(seen.points),
        "mouth open": mouth_opening(seen.points),
        "yaw +": seen.pose[:, 0],
        "yaw -": -seen.pose[:, 0],
        "pitch +": seen.pose[:, 1],
        "gaze +": gaze(seen.points)[:, 0],
        "gaze -": -gaze(seen.points)[:, 0],
    }
    even = np.linspace(0, len(found) - 1, EVEN_FRAMES).astype(int)
    chosen = [(f"frame {found[i]}", int(found[i])) for i in even]
    return chosen + [(name, int(found[np.argmax(values)])) for name, values in tracks.items()]


def write_sheet(path: Path, rows: Sequence[Pictures], frames: Sequence[tuple[str, int]]) -> None:
    """Write a PNG: one column a frame, one row a version `[T, R, R, 3]`."""
    picked = [np.concatenate([row[at] for _, at in frames], axis=1) for row in rows]
    body = np.concatenate(picked, axis=0)
    side = rows[0].shape[2]
    head = np.full((HEADER, body.shape[1], 3), 255, np.uint8)
    for column, (name, at) in enumerate(frames):
        text = name if name.startswith("frame") else f"{name} {at}"
        place = (column * side + 2, HEADER - 4)
        cv2.putText(head, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    path.write_bytes(encode_png(np.ascontiguousarray(np.concatenate([head, body], axis=0))))


def write_swap_sheet(
    path: Path, sources: Mapping[str, Pictures], swaps: Mapping[tuple[str, str], Pictures]
) -> None:
    """Write a PNG: drivers down, puppets across; the driver's own frames stand in front.

    Args:
        path: where.
        sources: the driver's own picture `[R, R, 3]` by clip.
        swaps: the puppet's picture by driver and puppet.
    """
    names = list(sources)
    lines = [
        np.concatenate([sources[a], *(swaps.get((a, b), sources[a] * 0) for b in names)], axis=1)
        for a in names
    ]
    path.write_bytes(encode_png(np.ascontiguousarray(np.concatenate(lines, axis=0))))
