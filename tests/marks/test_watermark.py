"""The watermark: its code, its strength, and what the detector finds after common changes."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.marks.detect import confidence, detect, viterbi
from sglat.marks.steps import motionless_steps
from sglat.marks.watermark import (
    HALF_PERIOD_SECONDS,
    Watermark,
    checksum,
    encode,
    pack,
    phase_at,
    tile_of,
    unpack,
)

ID = b"\x12\x34\x56"
FRAMES = 100
Frames = NDArray[np.uint8]


@cache
def clip() -> Frames:
    """Return smooth moving pictures `[T, 128, 128, 3]` with a little noise."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:128, :128]
    frames = [
        128 + 60 * np.sin(x / 17 + t / 9) * np.cos(y / 23) + random.normal(0, 1, x.shape)
        for t in range(FRAMES)
    ]
    return np.repeat(np.stack(frames)[..., None].clip(0, 255).astype(np.uint8), 3, axis=3)


@cache
def marked() -> Frames:
    mark = Watermark(ID)
    return np.stack([mark.mark(frame, index) for index, frame in enumerate(clip())])


def transcoded(frames: Frames, crf: int) -> Frames:
    """Return frames after H.264."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in [*frames, None]:
            picture = None if frame is None else av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
    buffer.seek(0)
    with av.open(buffer, "r") as source:
        return np.stack([f.to_ndarray(format="rgb24") for f in source.decode(video=0)])


def evidence_of(identifier: bytes) -> NDArray[np.float32]:
    evidence = np.zeros((1, 13, 32), np.float32)
    evidence[0, np.arange(13), encode(pack(identifier))] = 1
    return evidence


def test_the_code_corrects_a_missing_and_a_wrong_symbol_of_thirteen() -> None:
    evidence = evidence_of(ID)
    evidence[0, 4] = 0
    evidence[0, 9] = np.roll(evidence[0, 9], 5)
    assert unpack(viterbi(evidence)[0][0]) == (1, ID)


def test_the_decoder_names_the_evidence_that_it_used() -> None:
    assert viterbi(evidence_of(ID))[1].tolist() == [[1.0] * 13]


@pytest.mark.parametrize("at", [0, 7, 25, 38])
def test_one_wrong_payload_bit_fails_the_checksum(at: int) -> None:
    bits = pack(ID)
    bits[at] ^= 1
    assert unpack(bits) is None


def test_the_checksum_is_that_of_thirteen_bits_by_its_polynomial() -> None:
    assert [checksum(np.zeros(n, np.uint8)) for n in (0, 1)] == [0x1FFF, 0x1FFE ^ 0x1CF5]


def test_one_cell_of_each_group_of_four_is_marked() -> None:
    assert np.abs(tile_of(ID, b"a key")[0]).sum() == 16


def test_the_change_is_at_least_46_decibels_below_the_picture() -> None:
    error = np.square(marked().astype(float) - clip()).mean()
    assert 10 * np.log10(255**2 / error) >= 46


def test_the_mark_repeats_after_two_half_periods() -> None:
    assert phase_at(1.3) == phase_at(1.3 + 2 * HALF_PERIOD_SECONDS) != phase_at(1.7)


def test_a_frame_depends_on_its_index_alone() -> None:
    assert np.array_equal(Watermark(ID).mark(clip()[20], 20), marked()[20])


def test_nothing_outside_the_mask_is_changed() -> None:
    mask = np.zeros((128, 128), np.float32)
    mask[:, 64:] = 1
    made = Watermark(ID).mark(clip()[0], 0, mask=mask)
    assert np.array_equal(made[:, :64], clip()[0, :, :64])
    assert not np.array_equal(made[:, 64:], clip()[0, :, 64:])


@pytest.mark.parametrize("size", [(30, 17), (256, 300), (130, 1), (800, 900)])
def test_pictures_of_any_size_are_marked_and_keep_it(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 100, np.uint8)
    assert Watermark(ID).mark(frame, 3).shape == frame.shape


def pasted(frames: Frames) -> Frames:
    full = frames.repeat(2, 1).repeat(2, 2)[:, ::-1].copy()
    full[:, 70:198, 66:194] = frames
    return full


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f,
        lambda f: f[9:],
        lambda f: f[:, 5:119, 3:117],
        lambda f: (f * 0.8 + 20).astype(np.uint8),
        lambda f: (255 * (f / 255) ** 0.8).astype(np.uint8),
        lambda f: f.repeat(2, 1).repeat(2, 2),
        lambda f: f.reshape(-1, 64, 2, 64, 2, 3).mean((2, 4)).astype(np.uint8),
        pasted,
        lambda f: transcoded(f, 28),
    ],
    ids=["plain", "late", "crop", "brightness", "gamma", "doubled", "halved", "pasted", "H.264"],
)
def test_the_identifier_is_read_after_a_change(change: Callable[[Frames], Frames]) -> None:
    found = detect(change(marked()))
    assert (found.found, found.id, found.version) == (True, ID, 1)


def test_other_frame_rates_are_read_by_their_times() -> None:
    assert detect(marked()[::2], frame_rate=12.5).id == ID


def test_unmarked_pictures_give_nothing() -> None:
    assert not detect(clip()).found


def test_another_key_gives_nothing() -> None:
    assert not detect(marked()[:50], b"another key").found


def test_few_or_flat_frames_give_nothing() -> None:
    assert not detect(marked()[:3]).found
    assert not detect(np.zeros((20, 64, 64, 3), np.uint8)).found


@pytest.mark.parametrize("size", [(1, 1), (9, 200), (64, 2)])
def test_pictures_too_small_for_a_tile_give_nothing(size: tuple[int, int]) -> None:
    assert not detect(np.zeros((30, *size, 3), np.uint8)).found


def test_frames_of_another_size_or_time_are_left_out() -> None:
    frames = [*marked()[:40], np.zeros((64, 64, 3), np.uint8), *marked()[40:]]
    times = [*(at / 25 for at in range(40)), 1.59, *(at / 25 for at in range(40, 100))]
    assert detect(frames, seconds=times).id == ID


def test_a_higher_score_is_never_less_sure() -> None:
    sure = [confidence(score) for score in np.linspace(0, 18, 50)]
    assert sure == sorted(sure) and sure[0] == 0 and sure[-1] > 0.999


def test_a_moving_pattern_leaves_less_than_a_step_of_light() -> None:
    x = np.arange(64, dtype=np.float32)
    moving = np.stack([30 * np.sin((x[None] + 0.5 * t) / 4) + 0 * x[:, None] for t in range(20)])
    lit = moving.copy()
    lit[10:, 20:30, 20:30] += 4
    times = np.arange(20) / 25
    steps, _ = motionless_steps(lit.astype(np.float32), times)
    assert np.abs(steps[9, 22:28, 22:28]).mean() > 4 * np.abs(steps[9, 45:60, 45:60]).mean()
