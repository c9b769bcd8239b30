"""The visible label: a line of text in the corner of a picture, which tells people that it is
generated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.origins import LABEL
from sglat.errors import UsageError
from sglat.media.glyphs import ACCENT_ROWS, draw_line, missing_letters

DEFAULT_LABEL: Final = "AI-generated"
MAX_LABEL: Final = 64  # characters; three lines at 128 pixels
PIXELS_A_DOT: Final = 140  # of the shorter side: capitals are 5 % of it high
PADDING, MARGIN, LEADING = 2, 2, 1  # dots around the text, around its box, and between lines
SHADE: Final = 0.3  # of the picture under the text's box


def check_label(text: str) -> str:
    """Return a label without blanks around it.

    Raises:
        UsageError: `bad-label`: it is empty, too long, or has letters that the font lacks.
    """
    text = " ".join(text.split())
    if not 1 <= len(text) <= MAX_LABEL:
        raise UsageError(
            "bad-label", f"expected a label of 1 to {MAX_LABEL} characters, got {len(text)}"
        )
    if lacking := missing_letters(text):
        raise UsageError(
            "bad-label",
            f"expected a label in Latin letters, digits and ASCII signs, found {lacking!r:.40}",
        )
    return text


def wanted_label(extra: Mapping[str, Any]) -> str:
    """Return the label that the further keys of a PROV record ask for; empty if none. One that
    cannot be drawn becomes the default."""
    found = extra.get(LABEL)
    if not isinstance(found, str) or not found:
        return ""
    try:
        return check_label(found[: 4 * MAX_LABEL])
    except UsageError:
        return DEFAULT_LABEL


def draw_label(picture: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Return a picture `[H, W, 3]` with white text on a shaded box in its lower left corner.

    Args:
        picture: RGB; not changed.
        text: from `check_label`.

    Raises:
        UsageError: `bad-label`: the picture is too small for it.
    """
    height, width = picture.shape[:2]
    box, margin = _box(text, height, width)
    rows, columns = box.shape
    part = (slice(height - margin - rows, height - margin), slice(margin, margin + columns))
    labelled = picture.copy()
    shaded = picture[part] * np.float32(SHADE)
    labelled[part] = np.where(box[..., None], 255, shaded).astype(np.uint8)
    return labelled


@lru_cache(maxsize=8)
def _box(text: str, height: int, width: int) -> tuple[NDArray[np.bool_], int]:
    """Return which pixels of the box are text, and its distance from the borders."""
    side = min(height, width)
    for dot in range(max(1, round(side / PIXELS_A_DOT)), 0, -1):
        room = width // dot - 2 * (MARGIN + PADDING)
        lines = _wrapped(text, room)
        box = _set(lines)
        if lines and (box.shape[0] + 2 * MARGIN) * dot <= height // 2:
            return np.kron(box, np.ones((dot, dot), bool)), MARGIN * dot
    raise UsageError(
        "bad-label",
        f"pictures of {width}x{height} have no room for the label {text!r}; take a larger size or "
        "a shorter text",
    )


def _set(lines: list[str]) -> NDArray[np.bool_]:
    """Return lines below each other with an empty border, one pixel a dot."""
    bitmaps = [draw_line(line) for line in lines]
    if not any(bitmap[:ACCENT_ROWS].any() for bitmap in bitmaps):
        bitmaps = [bitmap[ACCENT_ROWS:] for bitmap in bitmaps]
    columns = max((bitmap.shape[1] for bitmap in bitmaps), default=0)
    padded = [np.pad(b, ((0, LEADING), (0, columns - b.shape[1]))) for b in bitmaps]
    text = np.concatenate(padded)[:-LEADING] if padded else np.zeros((0, 0), bool)
    return np.pad(text, PADDING)


def _wrapped(text: str, room: int) -> list[str]:
    """Return lines of at most `room` columns, broken at blanks and behind hyphens; none if a part
    of a word is wider."""
    lines = [""]
    for part in re.findall(r"[^\s-]*-+|[^\s-]+|\s+", text):
        if draw_line((lines[-1] + part).strip()).shape[1] <= room:
            lines[-1] += part
        elif draw_line(part.strip()).shape[1] <= room:
            lines.append(part.lstrip())
        else:
            return []
    return [line.strip() for line in lines if line.strip()]
