"""Jacobians of residuals by motion: at a few linearisation points, columns in chunks, large ones in
files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.func import jacfwd, jvp, vmap

from sglat.encoder.losses import Residual

MOST_MATRIX_BYTES: Final = 1 << 30
"""Of all Jacobians of a residual in memory; larger ones are kept in files."""

Render = Callable[[Tensor], Tensor]
"""Motion values `[N, 34]` to pictures `[N, 3, H, W]`."""


@dataclass(frozen=True, kw_only=True)
class Jacobians:
    """Jacobians of the residual at a few linearisation points."""

    motion: Tensor
    """Of the linearisation points, `[P, 34]`."""
    matrices: Tensor | Sequence[Tensor]
    """Change of the residual per unit of motion, `[P, R, 34]`; P matrices where they are large."""
    normals: Tensor
    """`JᵀJ`, `[P, 34, 34]`."""
    picture_effect: Tensor
    """Root mean square picture change per unit of motion, `[34]`."""

    def nearest(self, motion: Tensor, units: Tensor) -> Tensor:
        """Return the linearisation point nearest to each row of motion `[n, 34]`, `[n]`; `units`
        `[34]` are factors by which all columns have the same effect on the picture."""
        return torch.cdist(motion * units, self.motion * units).argmin(1)


def motion_jacobian(render: Render, motion: Tensor, tangents: int | None = None) -> Tensor:
    """Return the derivative of the picture of motion `[34]`, `[34, 3, H, W]`.

    Args:
        render: of one motion.
        motion: where it is taken.
        tangents: columns taken at once, each of which takes as much memory as a picture's
            rendering; None: all.
    """

    def picture(row: Tensor) -> Tensor:
        return render(row[None])[0]

    if tangents is None:
        jacobian: Tensor = jacfwd(picture)(motion)
        return jacobian.movedim(-1, 0)

    def change(direction: Tensor) -> Tensor:
        changed: Tensor = jvp(picture, (motion,), (direction,))[1]
        return changed

    directions = torch.eye(len(motion), device=motion.device).split(tangents)
    return torch.cat([vmap(change)(part) for part in directions])


@torch.no_grad()
def picture_effect(render: Render, motion: Tensor, tangents: int | None = None) -> Tensor:
    """Return the root mean square picture change per unit of each value at motion `[34]`,
    `[34]`; `tangents` as for `motion_jacobian`."""
    return motion_jacobian(render, motion, tangents).square().mean((1, 2, 3)).sqrt()


@torch.no_grad()
def take_jacobians(
    render: Render,
    motion: Tensor,
    residuals: Sequence[Residual],
    progress: Callable[[int, int], None] | None = None,
    *,
    tangents: int | None = None,
    folder: Path | None = None,
) -> list[Jacobians]:
    """Take Jacobians at linearisation points `[P, 34]`, once for each residual.

    Args:
        render: of the person.
        motion: linearisation points.
        residuals: whose Jacobians are taken.
        progress: called with points done and in all.
        tangents: as for `motion_jacobian`.
        folder: where matrices of more than `MOST_MATRIX_BYTES` are kept; None: in memory.
    """
    matrices: list[list[Tensor]] = [[] for _ in residuals]
    effects = []
    for index, row in enumerate(motion):
        changes = motion_jacobian(render, row, tangents)
        picture = render(row[None])
        effects.append(changes.square().mean((1, 2, 3)))
        for found, residual in zip(matrices, residuals, strict=True):
            matrix = _pushed(residual, picture, changes, tangents)
            found.append(_kept(matrix, len(motion), folder))
        if progress is not None:
            progress(index + 1, len(motion))
    effect = torch.stack(effects).mean(0).sqrt()
    return [_joined(motion, found, effect) for found in matrices]


def _pushed(residual: Residual, picture: Tensor, changes: Tensor, tangents: int | None) -> Tensor:
    """Return the change of a residual per unit of motion, `[R, 34]`."""
    if tangents is None:
        return residual.pushed(picture, changes).T.contiguous()
    parts = [residual.pushed(picture, part) for part in changes.split(tangents)]
    return torch.cat(parts).T.contiguous()


def _kept(matrix: Tensor, count: int, folder: Path | None) -> Tensor:
    """Return a matrix, moved into a file without a name where `count` of them are large."""
    size = matrix.numel() * matrix.element_size()
    if folder is None or matrix.device.type != "cpu" or count * size <= MOST_MATRIX_BYTES:
        return matrix
    with TemporaryFile(dir=folder) as file:  # its bytes stay as long as they are mapped
        file.truncate(size)
        mapped = np.memmap(file, np.float32, "r+", shape=tuple(matrix.shape))
    kept = torch.from_numpy(mapped)
    kept.copy_(matrix)
    return kept


def _joined(motion: Tensor, matrices: list[Tensor], effect: Tensor) -> Jacobians:
    size = sum(matrix.numel() * matrix.element_size() for matrix in matrices)
    if size > MOST_MATRIX_BYTES:  # never copied, since they may lie in files
        normals = torch.stack([matrix.T @ matrix for matrix in matrices])
        return Jacobians(motion=motion, matrices=matrices, normals=normals, picture_effect=effect)
    stacked = torch.stack(matrices)
    return Jacobians(
        motion=motion,
        matrices=stacked,
        normals=stacked.transpose(1, 2) @ stacked,
        picture_effect=effect,
    )


@torch.no_grad()
def secant_jacobians(
    render: Render,
    motion: Tensor,
    residual: Residual,
    change: Tensor,
    progress: Callable[[int, int], None] | None = None,
) -> Jacobians:
    """Take Jacobians at linearisation points `[P, 34]` by differences: quicker than derivatives
    where pictures are rendered without them, and true over the whole change.

    Args:
        render: in single precision; half of it drowns the differences.
        motion: linearisation points.
        residual: whose Jacobians are taken.
        change: of each value, `[34]`.
        progress: called with points done and in all.
    """
    matrices, effects = [], []
    for index, row in enumerate(motion):
        pictures = render(torch.cat([row[None], row + torch.diag(change)]))
        effects.append(((pictures[1:] - pictures[:1]) / change[:, None, None, None]).square())
        found = residual(pictures)
        matrices.append(((found[1:] - found[:1]) / change[:, None]).T.contiguous())
        if progress is not None:
            progress(index + 1, len(motion))
    stacked = torch.stack(matrices)
    return Jacobians(
        motion=motion,
        matrices=stacked,
        normals=stacked.transpose(1, 2) @ stacked,
        picture_effect=torch.stack(effects).mean((0, 2, 3, 4)).sqrt(),
    )
