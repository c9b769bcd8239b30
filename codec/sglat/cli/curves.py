"""What `sgl-info --curves` prints: a sparkline for each group and channel."""

from __future__ import annotations

from typing import Final

import numpy as np

from sglat.bitstream.channels import CHANNEL_NAMES, SETS
from sglat.bitstream.curves import LEVELS, PLAIN_LEVELS, Curves, Float64, sparkline

LEAST_WIDTH: Final = 10
HEAD: Final = f"{'':<11}{'least':>8}{'most':>8}  "


def curve_lines(curves: Curves, columns: int, *, is_plain: bool = False) -> list[str]:
    """Return the lines.

    A group's curve is the root mean square of its controls' distance from their means.

    Args:
        curves: of the file.
        columns: width of the terminal.
        is_plain: use ASCII alone.
    """
    width = max(LEAST_WIDTH, columns - len(HEAD) - 1)
    levels = PLAIN_LEVELS if is_plain else LEVELS
    first, last = float(curves.seconds[0]), float(curves.motion_rate.edges_seconds[-1])

    def row(name: str, values: Float64) -> str:
        low, high = float(values.min()), float(values.max())
        return f"{name:<11}{low:>8.2f}{high:>8.2f}  {sparkline(values, width, levels)}"

    lines = [f"{HEAD}{first:.2f} s to {last:.2f} s, {len(curves.seconds)} frames"]
    for group, channels in SETS.items():
        if group in ("all", "controls"):
            continue
        values = curves.values[:, channels]
        if group != "pose":
            spread = np.sqrt(np.square(values - values.mean(axis=0)).mean(axis=1))
            lines.append(row(group, spread))
        lines += [
            row(f"  {CHANNEL_NAMES[channel]}", values[:, at]) for at, channel in enumerate(channels)
        ]
    if curves.is_held.any():
        lines.append(row("held", curves.is_held.astype(np.float64)))
    return lines
