"""Identity and motion to StyleSpace vectors: the first half of decoding, differentiable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sglat.bitstream.records import FIRST_CONTROL, Identity
from sglat.bundles.bundle import PoseTurner
from sglat.bundles.controls import Controls
from sglat.errors import BundleMismatchError
from sglat.networks.stylegan2 import Generator

Transfer = Literal["relative", "absolute"]


@dataclass(frozen=True, kw_only=True)
class Person:
    """An identity as tensors."""

    ws: Tensor
    """The ID latent, `[L, D]`."""
    neutral: Tensor
    """The ID frame's own yaw, pitch (degrees) and controls, `[34]`."""


def person_of(identity: Identity, generator: Generator) -> Person:
    """Return an identity's latent and neutral on the generator's device.

    Raises:
        BundleMismatchError: the latent has another shape than the generator's.
    """
    offset = torch.from_numpy(identity.latent_offset()).to(generator.w_avg)
    expected = (generator.config.num_ws, generator.config.style_dim)
    if tuple(offset.shape) != expected:
        raise BundleMismatchError(
            "wrong-latent", f"expected a latent {expected}, found {tuple(offset.shape)}"
        )
    neutral = torch.from_numpy(identity.neutral.copy()).to(offset)
    return Person(ws=generator.w_avg + offset, neutral=neutral)


def retarget(
    motion: Tensor, *, puppet: Tensor, driver: Tensor | None, transfer: Transfer
) -> Tensor:
    """Return motion as the puppet is to perform it.

    Args:
        motion: `[N, 34]` as the driver's file says it.
        puppet: neutral of the person shown, `[34]`.
        driver: neutral of the person the motion comes from, `[34]`; None: the same person.
        transfer: `relative` carries over the difference from the driver's neutral to the puppet's;
            `absolute` takes the values as they are.

    Source: method, section 13.
    """
    if driver is None or transfer == "absolute":
        return motion
    return motion + (puppet - driver)


def animate(
    person: Person,
    motion: Tensor,
    *,
    generator: Generator,
    pose_flow: PoseTurner,
    controls: Controls,
) -> list[Tensor]:
    """Return the StyleSpace vectors of each frame.

    The ID latent is turned from its own yaw and pitch to the frame's, goes through the generator's
    affine layers, and is moved along the controls by their difference from neutral.

    Args:
        person: latent and neutral.
        motion: yaw, pitch (degrees) and controls, `[N, 34]`; differentiable.
        generator: whose affine layers are used.
        pose_flow: turns latents.
        controls: the 32 directions.

    Returns:
        One `[N, C]` per StyleSpace layer.
    """
    source = person.neutral[None, :FIRST_CONTROL]  # what the person has, is found once for all
    turned = pose_flow.turn(person.ws[None], source, motion[:, :FIRST_CONTROL])
    offsets = motion[:, FIRST_CONTROL:] - person.neutral[FIRST_CONTROL:]
    return controls.apply(generator.styles(turned), offsets)
