"""Names of the 34 motion channels: pose, groups of controls, single ones (SPEC.md section 7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from sglat.bitstream.records import FIRST_CONTROL, MOTION_CHANNELS
from sglat.errors import UsageError

# Groups and counts of table 1 of the paper's supplement, in its order.
GROUP_SIZES: Final = {"mouth": 17, "chin": 4, "eyes": 6, "brows": 4, "gaze": 1}
GROUPS: Final = tuple(group for group, size in GROUP_SIZES.items() for _ in range(size))
CONTROL_NAMES: Final = tuple(
    f"{group} {number + 1}" for group, size in GROUP_SIZES.items() for number in range(size)
)
CHANNEL_NAMES: Final = ("yaw", "pitch", *CONTROL_NAMES)
"""The standard name of each channel; bundles may have further ones for their controls."""
POSE: Final = tuple(range(FIRST_CONTROL))
_CONTROLS: Final = tuple(range(FIRST_CONTROL, MOTION_CHANNELS))
SETS: Final[dict[str, tuple[int, ...]]] = {
    "all": (*POSE, *_CONTROLS),
    "pose": POSE,
    "controls": _CONTROLS,
    **{group: tuple(c for c in _CONTROLS if GROUPS[c - 2] == group) for group in GROUP_SIZES},
}
"""Channels by the name of a set."""
_SINGLE: Final = {name: (number,) for number, name in enumerate(CHANNEL_NAMES)}
_ALIASES: Final = {
    "yaw degrees": (0,), "pitch degrees": (1,), "gaze 1": _SINGLE["gaze 1"],
    **{f"control {number}": (channel,) for number, channel in enumerate(_CONTROLS)},
}  # fmt: skip
_KNOWN: Final = {**SETS, **_SINGLE, **_ALIASES}


def find_channels(text: str, own_names: Sequence[str] = ()) -> tuple[int, ...]:
    """Return the channels that a name stands for, rising; several names stand between commas.

    Case, `_` for a space, a missing space and leading zeros of the number make no difference.

    Args:
        text: such as `mouth 3`, `eyes`, `pose`, `yaw` or `mouth, chin`.
        own_names: of the 32 controls in the file's bundle, tried after the standard names.

    Raises:
        UsageError: `unknown-control` with the nearest names.
    """
    own = {_plain(name): (FIRST_CONTROL + at,) for at, name in enumerate(own_names)}
    known = {**own, **_KNOWN}
    found: set[int] = set()
    for name in text.split(","):
        channels = known.get(_plain(name))
        if channels is None:
            raise UsageError("unknown-control", _unknown(name.strip(), known))
        found.update(channels)
    return tuple(sorted(found))


def channel_label(channels: Sequence[int]) -> str:
    """Return a short name of some channels, for messages."""
    for name, members in SETS.items():
        if tuple(channels) == members:
            return name
    return ", ".join(CHANNEL_NAMES[channel] for channel in channels)


def _plain(name: str) -> str:
    spaced = re.sub(r"[\s_]+", " ", name.strip().lower())
    split = re.sub(r"(?<=[a-z])(?=\d)", " ", spaced)
    return re.sub(r"\b0+(?=\d)", "", split)


def _unknown(name: str, known: dict[str, tuple[int, ...]]) -> str:
    plain = _plain(name)
    group = next((word for word in GROUP_SIZES if re.fullmatch(rf"{word} -?\d+", plain)), None)
    if group is not None:
        size = GROUP_SIZES[group]
        return f"expected {group} 1 to {group} {size}, found {name!r:.60}"
    shown = [word for word in known if not word.startswith("control ")]
    near = get_close_matches(plain, shown, n=3, cutoff=0.5)
    sets = "pose, yaw, pitch, mouth, chin, eyes, brows, gaze, controls, all, or one such as mouth 3"
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"expected a control ({sets}), found {name!r:.60}{hint}"
