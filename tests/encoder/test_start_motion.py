"""Initial motion, corrected by tuned frames."""

from __future__ import annotations

import torch
from torch import Tensor

from sglat.encoder.start_motion import corrected_motion

NOISE = 0.3


def _film(count: int = 200) -> tuple[Tensor, Tensor]:
    """Return motion by landmarks, and the motion by which a tuned person shows the same film.

    The latter is shifted, and half as large again where a value is large.
    """
    time = torch.linspace(0, 12, count)
    landmarks = torch.zeros(count, 34)
    landmarks[:, 0] = 12 * time.sin()  # degrees
    landmarks[:, 5] = 2 * (1.7 * time).sin().clamp(min=0)
    person = landmarks + 0.3
    person[:, 0] += 0.02 * landmarks[:, 0] * landmarks[:, 0].abs()
    person[:, 5] += 0.5 * landmarks[:, 5]
    return landmarks, person


def test_frames_are_corrected_as_tuned_frames_that_move_alike() -> None:
    landmarks, person = _film()
    chosen = list(range(0, 200, 8))
    found = corrected_motion(landmarks, chosen, person[chosen], NOISE)
    others = [row for row in range(200) if row not in chosen]

    def error(motion: Tensor, column: int) -> float:
        return float((motion - person)[others, column].square().mean().sqrt())

    shifted = landmarks + (person - landmarks)[chosen].median(0).values
    assert error(found, 0) < 0.35 * error(shifted, 0)  # degrees
    assert error(found, 5) < 0.35 * error(shifted, 5)  # sigmas
    torch.testing.assert_close(found[:, 9], person[:, 9])  # where the shift is all


def test_frame_unlike_all_tuned_ones_keeps_the_shift() -> None:
    landmarks, person = _film()
    landmarks[7, 20] = 60.0
    chosen = list(range(0, 200, 8))
    found = corrected_motion(landmarks, chosen, person[chosen], NOISE)
    shift = (person - landmarks)[chosen].median(0).values
    torch.testing.assert_close(found[7], landmarks[7] + shift)


def test_one_tuned_frame_shifts_all() -> None:
    landmarks, person = _film()
    found = corrected_motion(landmarks, [40], person[[40]], NOISE)
    torch.testing.assert_close(found, landmarks + (person - landmarks)[40])


def test_tuned_frames_that_move_the_same_shift_all() -> None:
    landmarks = torch.zeros(9, 34)
    found = corrected_motion(landmarks, [0, 4, 8], torch.full((3, 34), 0.5), NOISE)
    torch.testing.assert_close(found, torch.full((9, 34), 0.5))
