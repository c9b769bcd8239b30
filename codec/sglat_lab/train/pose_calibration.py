"""Calibrate a bundle's pose flow: requested against measured degrees.

    python -m sglat_lab.train.pose_calibration --packs DIR --cache DIR --bundle DIR

turns training stills and random identities, measures their pose with the landmark network, and
scales the flow's conditions until the measured angle rises by one degree per requested degree.
"""

from __future__ import annotations

from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.bundles.bundle import Bundle
from sglat.bundles.manifest import write_part
from sglat.bundles.random_identities import draw_people
from sglat.networks.faces import FaceAnalysis, FaceBox
from sglat.networks.pixels import to_pixels
from sglat.networks.pose_flow import ConcatSquash, PoseFlow
from sglat_lab.train.batches import FaceSampler
from sglat_lab.train.mapping import opened, parser_of

ANGLES: Final = ((-20.0, -10.0, 0.0, 10.0, 20.0), (-12.0, -6.0, 0.0, 6.0, 12.0))  # yaw, pitch
ROUNDS: Final = 2  # the measured angle is slightly nonlinear in the requested one


@torch.no_grad()
def stretch(flow: PoseFlow, factors: tuple[float, float]) -> None:
    """Scale the flow's conditions: one degree of yaw and pitch acts as `factors` before."""
    for layer in flow.layers:
        assert isinstance(layer, ConcatSquash)
        for part in (layer.gate, layer.shift):  # their inputs: time, yaw, pitch
            part.weight[:, 1:].mul_(part.weight.new_tensor(factors))


def face_box(side: int) -> FaceBox:
    """Return the typical face box of an aligned crop of `side` pixels."""
    left, top, right, bottom = (side * share for share in (0.2, 0.28, 0.8, 0.95))
    return FaceBox(left=left, top=top, right=right, bottom=bottom, score=1)


def measured_pose(faces: FaceAnalysis, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return yaw and pitch `[N, 2]` in degrees of crops `[N, H, W, 3]`; NaN without a face."""
    box = face_box(pictures.shape[1])
    found = [faces.landmarks(picture, box) for picture in pictures]
    return np.array(
        [(f.yaw_degrees, f.pitch_degrees) if f.score >= 0.5 else (np.nan, np.nan) for f in found]
    )


@torch.no_grad()
def identities_of(bundle: Bundle, sampler: FaceSampler, count: int) -> tuple[Tensor, Tensor]:
    """Return latents `[N, L, D]` and poses `[N, 2]` of stills and half as many random
    identities."""
    stills = sampler.stills
    rows = stills[np.linspace(0, len(stills) - 1, min(count, len(stills))).astype(int)]
    batches = [sampler.batch(part) for part in np.array_split(rows, max(1, len(rows) // 8))]
    drawn = draw_people(bundle, count // 2, seed=5)
    shown = np.concatenate([to_pixels(bundle.generator(part)) for part in drawn.split(8)])
    measured = torch.from_numpy(measured_pose(bundle.faces, shown)).float()
    known = ~measured.isnan().any(1)
    ws = torch.cat([*(bundle.inverter(batch.images) for batch in batches), drawn[known]])
    return ws, torch.cat([*(batch.pose_degrees for batch in batches), measured[known]])


@torch.no_grad()
def slopes(bundle: Bundle, ws: Tensor, source: Tensor) -> tuple[float, float]:
    """Return the slopes of measured over requested yaw and pitch.

    Args:
        bundle: generator, pose flow and landmark network.
        ws: latents `[N, L, D]`.
        source: their yaw and pitch, `[N, 2]`.
    """
    found = []
    for axis, angles in enumerate(ANGLES):
        requested, measured = [], []
        for angle in angles:
            target = torch.zeros(len(ws), 2)
            target[:, axis] = angle
            turned = bundle.pose_flow.turn(ws, source, target)
            shown = np.concatenate([to_pixels(bundle.generator(part)) for part in turned.split(8)])
            measured.append(measured_pose(bundle.faces, shown)[:, axis])
            requested.append(np.full(len(ws), angle))
        x, y = np.concatenate(requested), np.concatenate(measured)
        is_valid = np.isfinite(y)
        found.append(float(np.polyfit(x[is_valid], y[is_valid], 1)[0]))
    return found[0], found[1]


def calibrate(
    bundle: Bundle, ws: Tensor, source: Tensor, *, rounds: int = ROUNDS
) -> list[tuple[float, float]]:
    """Calibrate the pose flow of an opened bundle in place; return the slopes before each round
    and after the last.

    Raises:
        ValueError: the pose flow barely turns the head.
    """
    flow = cast(PoseFlow, bundle.pose_flow)
    history = [slopes(bundle, ws, source)]
    for _ in range(rounds):
        if min(history[-1]) < 0.2:
            raise ValueError(f"expected heads that turn when asked, found slopes {history[-1]}")
        stretch(flow, (1 / history[-1][0], 1 / history[-1][1]))
        history.append(slopes(bundle, ws, source))
    return history


def main() -> None:
    """Parse the arguments, fit, and write the pose flow into the bundle."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--people", type=int, default=60, help="training stills to turn")
    args = parser.parse_args()
    bundle, sampler = opened(args)
    for yaw, pitch in calibrate(bundle, *identities_of(bundle, sampler, args.people)):
        print(f"measured per requested degree: yaw {yaw:.3f}, pitch {pitch:.3f}", flush=True)
    part = bundle.part("pose_flow")
    flow: nn.Module = cast(nn.Module, bundle.pose_flow)
    write_part(
        args.bundle, name=bundle.name, role="pose_flow", kind=part.kind,
        tensors={name: value.half() for name, value in flow.state_dict().items()},
        config=part.config, licence=part.licence, source=part.source,
    )  # fmt: skip


if __name__ == "__main__":
    main()
