"""The people of a video for a user: a numbered contact sheet, and the choice by a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.bundles.bundle import Bundle
from sglat.encoder.crops import crop_picture
from sglat.encoder.people import Boxes, People, PeopleConfig, identity_vector
from sglat.errors import FaceError, MediaError
from sglat.files import write_atomically
from sglat.media.pictures import read_still
from sglat.media.reader import Clip, VideoReader

SHEET_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
SHEET_TILE: Final = 160  # pixels a side
SHEET_COLUMNS: Final = 3
SHEET_MARGIN: Final = 1.6  # side of a tile in sides of the face


def face_like(bundle: Bundle, people: People, path: Path) -> int:
    """Return the number of the person in a picture.

    Raises:
        FaceError: no face in the picture, or nobody like it in the video.
        MediaError: the picture cannot be read.
    """
    picture = read_still(path)
    boxes = bundle.faces.detect(picture)
    if not boxes:
        raise FaceError("no-face", f"expected a face in {path}, found none")
    vector = identity_vector(bundle.faces, picture, boxes[0], bundle.resolution, bundle.device)
    return people.like(vector, PeopleConfig(resolution=bundle.resolution).same)


def write_face_sheet(source: Path | Clip, people: People, target: Path) -> None:
    """Write a numbered contact sheet: a row for each face, at the first, middle and last sample."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for number, face in enumerate(people.faces):
        for column, at in enumerate(
            np.linspace(0, len(face.frames) - 1, SHEET_COLUMNS).astype(int)
        ):
            wanted.setdefault(int(face.frames[at]), []).append((number, column))
    sheet = np.full((SHEET_TILE * len(people.faces), SHEET_TILE * SHEET_COLUMNS, 3), 255, np.uint8)
    with VideoReader(source) as reader:
        for frame in reader:
            for number, column in wanted.get(frame.index, []):
                face = people.faces[number]
                box = face.boxes[int(np.searchsorted(face.frames, frame.index))]
                top, left = number * SHEET_TILE, column * SHEET_TILE
                sheet[top : top + SHEET_TILE, left : left + SHEET_TILE] = _tile(frame.picture, box)
    for number in range(len(people.faces)):
        place = (8, number * SHEET_TILE + 28)
        corner = (0, number * SHEET_TILE)
        cv2.rectangle(
            sheet, corner, (16 + 18 * len(str(number + 1)), corner[1] + 36), (0, 0, 0), -1
        )
        cv2.putText(
            sheet, str(number + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2
        )
    done, data = cv2.imencode(target.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not done:
        raise MediaError("sheet-failed", f"{target} cannot be encoded as {target.suffix}")
    write_atomically(target, data.tobytes())


def _tile(picture: NDArray[np.uint8], box: Boxes) -> NDArray[np.uint8]:
    """Return the square about a box, `[SHEET_TILE, SHEET_TILE, 3]`."""
    centre, side = (box[:2] + box[2:]) / 2, SHEET_MARGIN * float((box[2:] - box[:2]).max())
    placement = np.array([centre[0], centre[1], side, 0.0])
    return crop_picture(picture, placement, SHEET_TILE)
