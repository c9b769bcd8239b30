"""Encoding a clip of a known person in one pass, as fast as the frames can be followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.decoder.decode import prefetch
from sglat.encoder.causal import CausalConfig, CausalEncoder, Prepared, encoded
from sglat.encoder.causal_state import restore, state_of
from sglat.encoder.known import LIKE, KnownPerson, unlike
from sglat.encoder.quantize import PictureMetric, SolvedMotion, smoothed
from sglat.encoder.solve_motion import SmoothConfig
from sglat.encoder.stages import Stage, Task
from sglat.encoder.track import Track, shown_frames
from sglat.errors import FaceError
from sglat.media.reader import Clip, Frame, VideoReader
from sglat.networks.face_points import NUM_BLENDSHAPES

CHUNK: Final = 500
"""Frames after which rows and state are stored."""
AHEAD: Final = 250
"""Most frames that are prepared ahead of the solver, most of them while Jacobians are taken."""


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """A clip encoded in one pass."""

    track: Track
    """Without landmarks and expression, which are not kept."""
    placement: NDArray[np.float64]
    """`[T, 4]`."""
    solved: SolvedMotion
    likeness: float
    """Identity cosine of the first face to the person's."""
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class StreamConfig(Stage[Streamed]):
    """How a clip is encoded in one pass."""

    name = "stream"
    version = 2
    phase = "sweep"
    networks = ("faces", "perceptual", "landmarks", "estimator")

    causal: CausalConfig = CausalConfig()  # noqa: RUF009
    skipped: int = 1
    """Frames between two that are solved; see `encoded`."""
    strength: float = SmoothConfig().strength
    """See `smoothed`."""

    def run(self, task: Task, source: Path | Clip, known: KnownPerson) -> Streamed:
        """Follow, register and solve every frame; continues behind the last stored chunk."""
        store = task.open()
        with VideoReader(source) as reader:
            info, time_base = reader.info, reader.time_base
            expected = info.expected_frames or 0
            encoder = CausalEncoder(
                known, task.bundle, frame_rate=float(info.frame_rate), config=self.causal
            )
            stored = store.load_checkpoint()
            if stored is not None:
                restore(encoder, *stored)
            if not store.is_done:
                frames = iter(reader)
                for _ in range(encoder.index + 1):
                    next(frames)
                with _one_thread():
                    while rows := _chunk(encoder, frames, task.tell, expected, self.skipped):
                        new = rows[store.rows - (encoder.index + 1 - len(rows)) :]
                        if new:  # else stored before the state was
                            store.append(
                                {name: np.stack([r[name] for r in new]) for name in new[0]}
                            )
                        store.save_checkpoint(*state_of(encoder))
                likeness = -1.0 if encoder.likeness is None else encoder.likeness
                store.finish(facts={"likeness": likeness})
        rows_of = {n: store.read(n) for n in ("pts", "motion", "placement", "held", "cut")}
        held = rows_of["held"]
        if bool(held.all()):
            raise FaceError(
                "no-face",
                f"expected the known person, found no face of theirs in {store.rows} frames",
            )
        rows_of = {
            name: values if name in ("pts", "held", "cut") else values[shown_frames(held)]
            for name, values in rows_of.items()
        }
        track = _track_of(rows_of, (info.width, info.height), time_base, info.frame_rate)
        calm = smoothed(rows_of["motion"], self.strength, track.breaks)[track.shown]
        jacobians = encoder.solver.jacobians
        units = jacobians.picture_effect
        nearest = jacobians.nearest(torch.from_numpy(calm).to(units), units)
        metric = PictureMetric(
            normals=jacobians.normals.cpu().double().numpy(), nearest=nearest.cpu().numpy()
        )
        likeness = float(store.result()[1]["likeness"])
        return Streamed(
            track=track, placement=rows_of["placement"], likeness=likeness,
            solved=SolvedMotion(
                motion=calm, picture_effect=units.cpu().numpy(), metric=metric, shown=track.shown
            ),
            notes=[] if likeness >= LIKE else [unlike(likeness)],
        )  # fmt: skip


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run PyTorch on one core: small pictures gain nothing from more, and frames are prepared on
    another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _chunk(
    encoder: CausalEncoder,
    frames: Iterator[Frame],
    tell: Callable[[int, int], None],
    expected: int,
    skipped: int,
) -> list[dict[str, Any]]:
    """Encode the next frames; preparing runs ahead in a thread of its own."""

    def prepared() -> Iterator[tuple[int, Prepared]]:
        for _ in range(CHUNK):
            frame = next(frames, None)
            if frame is None:
                return
            yield frame.pts, encoder.prepare(frame.picture)

    rows, first = [], encoder.index + 1
    for pts, done in encoded(encoder, prefetch(prepared(), AHEAD), skipped):
        rows.append({
            "pts": np.int64(pts), "motion": done.motion, "placement": done.placement,
            "held": np.bool_(done.is_held), "cut": np.bool_(done.is_cut),
        })  # fmt: skip
        tell(done_frames := first + len(rows), max(expected, done_frames))
    return rows


def _track_of(
    rows: dict[str, NDArray[Any]], size: tuple[int, int], time_base: Fraction, rate: Fraction
) -> Track:
    count = len(rows["pts"])
    nothing, flags = np.zeros((count, 0), np.float32), np.zeros(count, bool)
    return Track(
        width=size[0], height=size[1], time_base=time_base, frame_rate=rate, pts=rows["pts"],
        points=nothing.reshape(count, 0, 1)[:, :0], pose=nothing, openness=nothing,
        blendshapes=np.zeros((0, NUM_BLENDSHAPES), np.float32),
        score=(~rows["held"]).astype(np.float32), held=rows["held"], other=flags,
        inside=np.ones(count, np.float32), cut=rows["cut"], blink=flags, most_faces=1,
    )  # fmt: skip
