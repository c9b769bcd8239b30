"""Stage 4: the ID frame: like the person, near frontal, eyes open (method, section 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sglat.encoder.invert import Inversion
from sglat.encoder.track import Track


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Which frames may be the ID frame."""

    frontal_degrees: float = 10.0
    """Largest yaw and pitch of a candidate."""
    relax_degrees: float = 5.0
    """The limit grows by this until a candidate is left."""
    calm_weight: float = 0.1
    """How much an unusual expression counts against a frame, per unit of distance from the
    median."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The chosen ID frame."""

    frame: int
    row: int
    """Its row among the inverted frames."""
    limit_degrees: float
    """The pose limit that left a candidate."""


def select(track: Track, inversion: Inversion, config: SelectConfig) -> Selection:
    """Choose the ID frame.

    The paper ranks by identity similarity alone. A calm face is preferred among similar ones, since
    every other expression is said relative to this frame.
    """
    frames = inversion.frames
    open_eyes = ~(track.blink | track.held)[frames]
    if not open_eyes.any():
        open_eyes = ~track.held[frames]
    pose = np.abs(track.pose[frames, :2]).max(1)
    limit = config.frontal_degrees
    while not (usable := open_eyes & (pose <= limit)).any():
        limit += config.relax_degrees
    score = inversion.similarity - config.calm_weight * _restlessness(track, frames)
    row = int(np.where(usable, score, -np.inf).argmax())
    return Selection(frame=int(frames[row]), row=row, limit_degrees=limit)


def _restlessness(track: Track, frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return each frame's distance of blendshapes from the clip's median, 1 on average."""
    shapes = track.blendshapes[frames]
    distance = np.linalg.norm(shapes - np.median(shapes, axis=0), axis=1)
    result: NDArray[np.float32] = distance / max(float(distance.mean()), 1e-6)
    return result


def similarity_plot(track: Track, inversion: Inversion, selection: Selection) -> str:
    """Return the similarity over time as a small SVG picture."""
    width, height, margin = 720, 200, 30
    frames, values = inversion.frames, inversion.similarity
    span = max(1, int(frames[-1]))
    low, high = float(values.min()), float(values.max())
    scale = max(high - low, 1e-6)

    def place(frame: int, value: float) -> str:
        x = margin + (width - 2 * margin) * frame / span
        y = height - margin - (height - 2 * margin) * (value - low) / scale
        return f"{x:.1f},{y:.1f}"

    line = " ".join(place(int(f), float(v)) for f, v in zip(frames, values, strict=True))
    chosen = place(selection.frame, float(values[selection.row])).split(",")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<polyline points="{line}" fill="none" stroke="#36c"/>'
        f'<circle cx="{chosen[0]}" cy="{chosen[1]}" r="5" fill="#c33"/>'
        f'<text x="{margin}" y="18">identity similarity of inverted frames, '
        f"{low:.2f} to {high:.2f}; ID frame {selection.frame} of {len(track)}</text></svg>"
    )
