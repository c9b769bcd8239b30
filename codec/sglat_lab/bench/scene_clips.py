"""Videos of two people with known truth, made of two single clips: side by side, crossing, away
and back, and with cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sglat.media.reader import VideoReader
from sglat.media.writer import VideoWriter

RATE: Final = Fraction(25)
WALL: Final = (96, 104, 112)
SIDE: Final = 400
"""Of the square cards in pixels."""
WIDTH: Final = 880
HEIGHT: Final = 440
CRF: Final = 12

Card = tuple[float, float] | None
"""Left and top of a card in pixels; None: it is not shown."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """How two cards move over a wall; the second one lies in front."""

    name: str
    seconds: float
    cards: Callable[[float], tuple[Card, Card]]
    """Where they are at a share of the time."""
    is_full: bool = False
    """The card that is shown fills the frame, as between cuts."""

    @property
    def frames(self) -> int:
        """Length."""
        return round(self.seconds * RATE)

    def at(self, frame: int) -> tuple[Card, Card]:
        """Return the cards of a frame, in whole pixels."""
        first, second = self.cards(frame / max(self.frames - 1, 1))
        return _whole(first), _whole(second)


def _whole(card: Card) -> Card:
    return None if card is None else (float(round(card[0])), float(round(card[1])))


LEFT: Final = 20.0
RIGHT: Final = WIDTH - SIDE - 20.0
TOP: Final = (HEIGHT - SIDE) / 2


def _beside(share: float) -> tuple[Card, Card]:
    return (LEFT, TOP), (RIGHT, TOP)


def _crossing(share: float) -> tuple[Card, Card]:
    """The two change places, one before the other."""
    moved = min(max((share - 0.15) / 0.7, 0.0), 1.0)
    moved = moved * moved * (3 - 2 * moved)
    return (LEFT + moved * (RIGHT - LEFT), TOP), (RIGHT - moved * (RIGHT - LEFT), TOP)


def _leaving(share: float) -> tuple[Card, Card]:
    """The second leaves to the right, the first takes that place, the second comes back at the
    left."""
    away = WIDTH + 40.0
    if share < 0.3:
        out = share / 0.3
        return (LEFT, TOP), (RIGHT + out * (away - RIGHT), TOP)
    if share < 0.6:
        moved = (share - 0.3) / 0.3
        return (LEFT + moved * (RIGHT - LEFT), TOP), None
    back = min((share - 0.6) / 0.25, 1.0)
    start = -SIDE - 40.0
    return (RIGHT, TOP), (start + back * (LEFT - start), TOP)


def _cut(share: float) -> tuple[Card, Card]:
    is_first = share < 0.4 or share >= 0.75
    return ((0.0, 0.0), None) if is_first else (None, (0.0, 0.0))


SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene(name="beside", seconds=1, cards=_beside),
        Scene(name="crossing", seconds=3, cards=_crossing),
        Scene(name="leaving", seconds=3, cards=_leaving),
        Scene(name="cut", seconds=2.4, cards=_cut, is_full=True),
    )
}


def write_scene(scene: Scene, first: Path, second: Path, target: Path) -> Path:
    """Write a scene of two clips, each cut to a square and played at 25 frames/s from its start."""
    people = [square_frames(path) for path in (first, second)]
    size = (SIDE, SIDE) if scene.is_full else (WIDTH, HEIGHT)
    with VideoWriter(
        target, size=size, time_base=1 / RATE, frame_rate=RATE, encoder="libx264", crf=CRF,
        force=True,
    ) as writer:  # fmt: skip
        for number in range(scene.frames):
            frame = np.full((size[1], size[0], 3), WALL, np.uint8)
            for person, card in zip(people, scene.at(number), strict=True):
                picture = next(person)
                if card is not None:
                    _put(frame, picture, int(card[0]), int(card[1]))
            writer.write(frame, number)
    return target


def write_single(scene: Scene, which: int, source: Path, target: Path) -> Path:
    """Write one person of a scene alone: a card that does not move, without a wall."""
    person = square_frames(source)
    with VideoWriter(
        target, size=(SIDE, SIDE), time_base=1 / RATE, frame_rate=RATE, encoder="libx264", crf=CRF,
        force=True,
    ) as writer:  # fmt: skip
        for number in range(scene.frames):
            writer.write(next(person), number)
    return target


def square_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the middle squares of a clip, `[SIDE, SIDE, 3]`, at `RATE`; its last frame stays."""
    number = 0
    shown: NDArray[np.uint8] | None = None
    with VideoReader(path) as reader:
        for frame in reader:
            seconds = frame.pts * reader.time_base
            while shown is not None and number / RATE < seconds:
                yield shown
                number += 1
            height, width = frame.picture.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            square = frame.picture[top : top + side, left : left + side]
            small = cv2.resize(square, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            shown = np.asarray(small, np.uint8)
    while shown is not None:
        yield shown


def _put(frame: NDArray[np.uint8], picture: NDArray[np.uint8], left: int, top: int) -> None:
    """Copy a picture into a frame, cut off at its borders."""
    height, width = frame.shape[:2]
    low_x, low_y = max(left, 0), max(top, 0)
    high_x, high_y = min(left + picture.shape[1], width), min(top + picture.shape[0], height)
    if high_x > low_x and high_y > low_y:
        frame[low_y:high_y, low_x:high_x] = picture[low_y - top : high_y - top,
                                                    low_x - left : high_x - left]  # fmt: skip
