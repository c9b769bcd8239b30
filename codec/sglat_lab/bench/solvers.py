"""The method's own solver against the fast one: loss against generator passes on one short piece.

Both start from the same swept motion of the same tuned person, read from one encoding's file
and work file. A pass is one picture through the generator forwards, backwards to its inputs, or in
forward-mode differentiation by one number: about the same arithmetic each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.reader import load_identity, open_reader
from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Synthesizer
from sglat.encoder.choose_frames import spread_frames
from sglat.encoder.gauss_newton import FastSolver, SolverConfig
from sglat.encoder.jacobians import take_jacobians
from sglat.encoder.paper_solver import PASSES_AN_EPOCH, PaperClip, PaperConfig, PaperSolver
from sglat.encoder.person import TunedPerson
from sglat.encoder.solve_motion import ResidualConfig, expression_residual
from sglat.encoder.start_motion import comparable
from sglat.networks.pixels import from_pixels, to_pixels
from sglat_lab.bench.encodes import solved_motion
from sglat_lab.measure.judges import Judges, distances_to, features_of
from sglat_lab.measure.picture_metrics import psnr_db

JACOBIANS: Final = 8  # as the encoder takes
NUMBERS: Final = 34
EPOCHS_SHOWN: Final = (1, 2, 5, 10, 20, 35, 50, 75, 100)


@dataclass(frozen=True, kw_only=True)
class _Recorded(TunedPerson):
    """A person that records the motion it rendered with gradients."""

    rendered: list[Tensor] = field(default_factory=list)

    def render_fast(self, motion: Tensor) -> Tensor:
        """Return pictures; record the motion."""
        if motion.requires_grad:
            self.rendered.append(motion.detach().clone())
        return super().render_fast(motion)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What both solvers are given."""

    person: _Recorded
    start: Tensor
    """`[n, 34]` after the sweep."""
    all_start: Tensor
    """`[T, 34]` of the whole clip: Jacobians are shared by all its frames."""
    crops: NDArray[np.uint8]
    """`[n, R, R, 3]`."""
    points: Tensor
    """`[n, 478, 2]`, unit crop coordinates."""


def person_in(path: Path, bundle: Bundle) -> _Recorded:
    """Return the tuned person of a file, ready to be solved for at the bundle's rung."""
    identity = load_identity(path)
    with open_reader(path) as reader:
        whole = Synthesizer.of(bundle.of_file(reader.header))
    tuned = whole.tuned(identity.weight_deltas()).up_to(bundle.resolution)
    return _Recorded(
        identity=identity,
        person=whole.person(identity),
        synthesizer=whole.up_to(bundle.resolution),
        weights={name: value.detach() for name, value in tuned.generator.named_parameters()},
    )


def piece_of(
    path: Path, work: Path, bundle: Bundle, crops: NDArray[np.uint8],
    points: NDArray[np.float32], first: int,
) -> Piece:  # fmt: skip
    """Return a piece of a clip.

    Args:
        path: its file.
        work: its work file.
        bundle: weights.
        crops: of the piece, `[n, R, R, 3]`.
        points: of the piece, `[n, 478, 2]`.
        first: its first frame.
    """
    start = torch.from_numpy(solved_motion(work, "sweep"))
    return Piece(
        person=person_in(path, bundle),
        start=start[first : first + len(crops)],
        all_start=start,
        crops=crops,
        points=torch.from_numpy(points),
    )


def compare_solvers(
    piece: Piece, bundle: Bundle, judges: Judges, *, epochs: int, iterations: int
) -> dict[str, Any]:
    """Return both solvers' losses after so many passes a frame.

    Args:
        piece: what is solved.
        bundle: for the networks that the method's solver minimises.
        judges: measure the result.
        epochs: of the method's solver.
        iterations: of the fast one.
    """
    judge = _Judge(piece, judges)
    fast = _fast(piece, bundle, judge, iterations)
    paper = _paper(piece, bundle, judge, epochs)
    return {
        "frames": len(piece.start),
        "clip_frames": len(piece.all_start),
        "epochs": epochs,
        "epochs_of_method": PaperConfig().epochs,
        "perceptual": None if judges.perceptual is None else judges.perceptual.name,
        "start": judge(piece.start),
        "fast": fast,
        "paper": paper,
    }


class _Judge:
    """Measures motion of the piece by its pictures."""

    def __init__(self, piece: Piece, judges: Judges) -> None:
        self.piece, self.judges = piece, judges
        network = judges.perceptual
        self.features = None if network is None else features_of(network, piece.crops)

    @torch.no_grad()
    def __call__(self, motion: Tensor) -> dict[str, float]:
        parts = [self.piece.person.render(part) for part in motion.split(8)]
        pictures = to_pixels(torch.cat(parts))
        pairs = zip(pictures, self.piece.crops, strict=True)
        found = {"psnr": float(np.mean([psnr_db(a, b) for a, b in pairs]))}
        if self.judges.perceptual is not None and self.features is not None:
            whole, _ = distances_to(self.judges.perceptual, pictures, self.features)
            found["perceptual"] = float(whole.mean())
        return found


def _fast(piece: Piece, bundle: Bundle, judge: _Judge, iterations: int) -> list[dict[str, float]]:
    """Run the fast solver to each number of iterations; a longer run begins like a shorter one.

    The last run is the whole of it, with the Jacobians that it takes on the way.
    """
    config = SolverConfig(window=len(piece.start))
    targets = from_pixels(piece.crops)
    residual = expression_residual(bundle, piece.points, ResidualConfig())
    usable = torch.ones(len(piece.all_start), dtype=torch.bool)
    rows = spread_frames(comparable(piece.all_start), JACOBIANS, 0, usable)
    began = time.perf_counter()
    (jacobians,) = take_jacobians(piece.person.render, piece.all_start[rows], (residual,))
    spent = time.perf_counter() - began
    once = len(rows) * (1 + NUMBERS) / len(piece.all_start)  # shared by the clip's frames
    found = []
    runs = [replace(config, iterations=n, fresh=0) for n in range(iterations + 1)]
    for one in [*runs, config]:
        began = time.perf_counter()
        solver = FastSolver(piece.person.render, jacobians, residual, one)
        solved = torch.cat(list(solver.solve(lambda first, last: targets[first:last], piece.start)))
        seconds = time.perf_counter() - began
        found.append(
            {
                "passes": once + solver.passes / len(piece.start),
                "seconds": spent / len(piece.all_start) + seconds / len(piece.start),
                **judge(solved),
            }
        )
    return found


def _paper(piece: Piece, bundle: Bundle, judge: _Judge, epochs: int) -> list[dict[str, float]]:
    """Run the paper's solver once, from the same yaw and pitch and its own zero offsets; its
    numbers after each epoch are what it asks to render."""
    count = len(piece.start)
    config = PaperConfig(epochs=epochs, window=count)
    targets = from_pixels(piece.crops)
    clip = PaperClip(
        targets=lambda first, last: targets[first:last],
        points=piece.points.numpy(),
        begins=np.zeros(count, bool),
        shut=np.zeros(count, bool),
    )
    start = piece.person.person.neutral.expand(count, -1).clone()
    start[:, :2] = piece.start[:, :2]
    piece.person.rendered.clear()
    solver = PaperSolver(piece.person, bundle, clip, config)
    began = time.perf_counter()
    list(solver.solve(start, start[:0]))
    seconds = (time.perf_counter() - began) / count
    each = (PASSES_AN_EPOCH * epochs + 1) * count
    once = (solver.passes - each) / len(piece.all_start)  # rates: measured once a clip
    return [
        {
            "passes": once + PASSES_AN_EPOCH * epoch,
            "seconds": seconds * epoch / epochs,
            **judge(piece.person.rendered[epoch]),
        }
        for epoch in EPOCHS_SHOWN
        if epoch <= epochs
    ]
