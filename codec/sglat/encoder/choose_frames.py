"""Choice of the ID frame, and of a few tuning frames that represent the clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sglat.encoder.align import Alignment
from sglat.encoder.invert import Inversion, Selection
from sglat.encoder.stages import Stage, Task
from sglat.encoder.start_motion import StartMotion, comparable
from sglat.encoder.track import Track
from sglat.encoder.visible import Visible
from sglat.networks.face_points import feature_weights


@dataclass(frozen=True, kw_only=True)
class SelectConfig(Stage[Selection]):
    """How the ID frame is chosen: like the person, near frontal, eyes open (METHOD.md, D)."""

    name = "select"
    phase = "invert"

    frontal_degrees: float = 10.0
    """Largest yaw and pitch of a candidate."""
    relax_degrees: float = 5.0
    """The limit grows by this until a candidate is left."""
    calm_weight: float = 0.1
    """Penalty of an unusual expression, per unit of distance from the median of blendshapes."""

    def run(self, task: Task, track: Track, visible: Visible, inversion: Inversion) -> Selection:
        """Choose the ID frame.

        The paper ranks by identity similarity alone. Here a calm face is preferred among similar
        ones, since all motion is coded relative to this frame. Frames that show the face in part
        are taken only where there are no others.
        """
        frames = inversion.frames
        open_eyes = ~(track.blink | track.held)[frames]
        if not open_eyes.any():
            open_eyes = ~track.held[frames]
        if (whole := open_eyes & ~visible.is_partial[frames]).any():
            open_eyes = whole
        pose = np.abs(track.pose[frames, :2]).max(1)
        limit = self.frontal_degrees
        while not (usable := open_eyes & (pose <= limit)).any():
            limit += self.relax_degrees
        score = inversion.similarity - self.calm_weight * _unrest(track, frames)
        row = int(np.where(usable, score, -np.inf).argmax())
        return Selection(frame=int(frames[row]), row=row)


def _unrest(track: Track, frames: NDArray[np.int64]) -> NDArray[np.float32]:
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


@dataclass(frozen=True, kw_only=True)
class ChooseConfig(Stage[list[int]]):
    """How tuning frames are chosen."""

    name = "choose"
    phase = "tune"

    frames: int = 48
    """Tuning frames, the ID frame included."""
    candidates: int = 1500
    """Most frames that are compared with each other."""
    thumbnail_side: int = 32
    """Of the compared pictures, in pixels."""
    feature_weight: float = 2.0
    """Extra weight of eyes and mouth in them."""
    sweeps: int = 3
    """Exchanges after the first choice; a fourth changes next to nothing."""

    def run(
        self,
        task: Task,
        track: Track,
        aligned: Alignment,
        start: StartMotion,
        selection: Selection,
    ) -> list[int]:
        """Return frame numbers, the ID frame first."""
        usable = torch.from_numpy(~track.held)
        rows = candidate_frames(usable, selection.frame, self.candidates)
        parts = (aligned.crops.tensor(rows[at : at + 64]) for at in range(0, len(rows), 64))
        points, motion = torch.from_numpy(start.points[rows]), comparable(start.motion[rows])
        features = frame_features(parts, points, motion, self)
        return [rows[at] for at in typical_frames(features, self.frames, self.sweeps)]


def spread_frames(features: Tensor, count: int, first: int, usable: Tensor) -> list[int]:
    """Choose `count` usable frames (`[T]`) farthest from each other by features `[T, D]` in
    comparable units; the ID frame `first` is always chosen."""
    chosen = [first]
    distance = torch.cdist(features, features[first][None])[:, 0]
    while len(chosen) < min(count, int(usable.sum())):
        distance = torch.where(usable, distance, torch.full_like(distance, -1.0))
        best = int(distance.argmax())
        if distance[best] <= 0:
            break
        chosen.append(best)
        distance = torch.minimum(distance, torch.cdist(features, features[best][None])[:, 0])
    return chosen


def candidate_frames(usable: Tensor, first: int, most: int) -> list[int]:
    """Return the candidates for tuning frames: the ID frame, then usable ones (`[T]` bool) in
    order, evenly spread where there are more than `most`."""
    rows = usable.nonzero()[:, 0]
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), most)).long()]
    return [first, *(int(row) for row in rows if row != first)]


def frame_features(
    pictures: Iterable[Tensor], points: Tensor, motion: Tensor, config: ChooseConfig
) -> Tensor:
    """Return the features in which frames are compared, `[M, D]`: thumbnails and motion, equally
    weighted.

    Motion alone misses light, hair and background; thumbnails alone hardly show the lids. Given are
    parts of the crops `[n, 3, H, W]`, M in all, landmarks in crop units `[M, 478, 2]`, and motion
    in comparable units `[M, 34]`.
    """
    some, side = points[:: max(1, len(points) // 64)], config.thumbnail_side
    scale = feature_weights(some, side, config.feature_weight).mean(0, keepdim=True).sqrt()
    small = [F.interpolate(part, size=side, mode="area") * scale for part in pictures]
    halves = (torch.cat(small).flatten(1), motion)
    return torch.cat([_of_unit_spread(half) for half in halves], 1)


def _of_unit_spread(values: Tensor) -> Tensor:
    spread = (values - values.mean(0)).square().sum(1).mean().sqrt()
    return values / spread.clamp_min(1e-6)


def typical_frames(features: Tensor, count: int, sweeps: int = 3) -> list[int]:
    """Choose rows of features `[M, D]` so that each row has a chosen one near it; the first is
    always chosen, and fewer than `count` where rows are equal.

    Least sum of fourth powers of the distance to the nearest chosen row (k-medoids by greedy
    choice, then exchanges, Kaufman and Rousseeuw 1990, https://doi.org/10.1002/9780470316801.ch2).
    The frames farthest apart are outliers; a person tuned on these alone is worse on all others.
    With squared distances a single blink of a clip gets no frame. Fourth powers change the mean
    squared distance by a few percent, and bring rare frames nearer. The result is ordered farthest
    first.
    """
    compared = features.double()
    cost = torch.cdist(compared, compared).pow(4)  # of one frame standing for another
    chosen = [0]
    while len(chosen) < min(count, len(cost)):
        chosen.append(_best_addition(cost, chosen))
    for _ in range(sweeps):
        before = list(chosen)
        for place in range(1, len(chosen)):
            rest = chosen[:place] + chosen[place + 1 :]
            chosen[place] = _best_addition(cost, rest)
        if chosen == before:
            break
    distinct = torch.ones(len(chosen), dtype=torch.bool)
    order = spread_frames(compared[chosen], len(chosen), 0, distinct)
    return [chosen[at] for at in order]


def _best_addition(cost: Tensor, chosen: list[int]) -> int:
    """Return the row whose addition to those chosen leaves the least cost."""
    left = torch.minimum(cost[:, chosen].amin(1)[:, None], cost).sum(0)
    left[chosen] = torch.inf
    return int(left.argmin())
