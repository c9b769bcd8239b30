"""Start values of the 34 numbers after tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from sglat.encoder.start_motion import corrected_numbers


def _film(count: int = 200) -> tuple[Tensor, Tensor]:
    """Return what landmarks say of a film and what a tuned person takes to show it.

    The person moves half as far again as the landmarks say where a number is large, and all of it
    a little to the side.
    """
    time = torch.linspace(0, 12, count)
    said = torch.zeros(count, 34)
    said[:, 0] = 12 * time.sin()  # degrees
    said[:, 5] = 2 * (1.7 * time).sin().clamp(min=0)
    meant = said + 0.3
    meant[:, 0] += 0.02 * said[:, 0] * said[:, 0].abs()
    meant[:, 5] += 0.5 * said[:, 5]
    return said, meant


def test_frames_are_corrected_as_tuned_frames_that_move_alike() -> None:
    said, meant = _film()
    chosen = list(range(0, 200, 8))
    found = corrected_numbers(said, chosen, meant[chosen])
    others = [row for row in range(200) if row not in chosen]

    def error(numbers: Tensor, column: int) -> float:
        return float((numbers - meant)[others, column].square().mean().sqrt())

    shifted = said + (meant - said)[chosen].median(0).values
    assert error(found, 0) < 0.35 * error(shifted, 0)  # degrees
    assert error(found, 5) < 0.35 * error(shifted, 5)  # sigmas
    torch.testing.assert_close(found[:, 9], meant[:, 9])  # where the shift says all


def test_frame_unlike_all_tuned_ones_keeps_the_shift() -> None:
    said, meant = _film()
    said[7, 20] = 60.0
    chosen = list(range(0, 200, 8))
    found = corrected_numbers(said, chosen, meant[chosen])
    shift = (meant - said)[chosen].median(0).values
    torch.testing.assert_close(found[7], said[7] + shift)


def test_one_tuned_frame_shifts_all() -> None:
    said, meant = _film()
    found = corrected_numbers(said, [40], meant[[40]])
    torch.testing.assert_close(found, said + (meant - said)[40])


def test_tuned_frames_that_move_the_same_shift_all() -> None:
    said = torch.zeros(9, 34)
    found = corrected_numbers(said, [0, 4, 8], torch.full((3, 34), 0.5))
    torch.testing.assert_close(found, torch.full((9, 34), 0.5))
