"""Variants of a file, source crops, losses and the cost of it all, with a random bundle."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sglat.api import decode
from sglat.bundles.bundle import Bundle
from sglat.errors import FormatError, UsageError
from sglat.media.audio import AudioReader
from sglat.media.reader import Clip, VideoReader, exact_seconds
from sglat_lab.bench import file_variants, rate
from sglat_lab.measure import rates
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

FRAMES = 40


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def path(tmp_path: Path, bundle: Bundle) -> Path:
    return write_file(tmp_path / "a.sglat", bundle, frames=FRAMES)


def test_rows_of_a_file_are_those_of_the_whole(path: Path, bundle: Bundle, tmp_path: Path) -> None:
    rows = np.array([0, 3, 17, 39])
    whole = np.stack([frame.picture for frame in decode(path, bundle=bundle)])
    found = file_variants.decoded_rows(path, bundle, rows, tmp_path)
    assert np.abs(found.astype(int) - whole[rows]).max() <= 1  # another batch, another rounding


def test_coarser_motion_costs_less_and_stays_within_half_a_step(path: Path, tmp_path: Path) -> None:
    coarse = file_variants.with_coarser_motion(path, tmp_path / "b.sglat", 4)
    before, after = (file_variants.parse(p).motion for p in (path, coarse))
    assert np.abs(after.dequantize() - before.dequantize()).max() <= 2.001 * before.steps.max()
    assert rates.file_cost(coarse).running_bytes < rates.file_cost(path).running_bytes


def test_fewer_layers_cost_less_once_and_the_same_running(path: Path, tmp_path: Path) -> None:
    base = file_variants.with_layers(path, tmp_path / "b.sglat", 1)
    whole, part = rates.file_cost(path), rates.file_cost(base)
    assert part.once_bytes < whole.once_bytes
    assert part.running_bytes == whole.running_bytes


def test_the_cost_of_a_file_is_its_size(path: Path) -> None:
    cost = rates.file_cost(path)
    assert cost.once_bytes + cost.running_bytes == path.stat().st_size
    assert cost.first_view() == pytest.approx(8e-3 * path.stat().st_size / (FRAMES / 25))


def test_over_a_longer_clip_the_identity_counts_once(path: Path) -> None:
    cost = rates.Cost(once_bytes=6000, running_bytes=100, seconds=2)
    assert cost.first_view(60) == pytest.approx(8e-3 * (6000 + 3000) / 60)
    assert cost.cached == pytest.approx(0.4)


def test_sound_is_no_part_of_the_cost(path: Path, bundle: Bundle, tmp_path: Path) -> None:
    pictures = [moving_square(i) for i in range(FRAMES)]
    video = write_video(tmp_path / "v.mp4", pictures, audio_codec="aac")
    with AudioReader(video) as audio:
        sound = (audio.format, list(audio))
    loud = write_file(tmp_path / "b.sglat", bundle, frames=FRAMES, audio=sound)
    quiet, noisy = rates.file_cost(path), rates.file_cost(loud)
    index_entry = 16  # INDX names the audio chunk
    assert abs(noisy.once_bytes - quiet.once_bytes) == 0
    assert 0 <= noisy.running_bytes - quiet.running_bytes <= index_entry


def test_copied_sound_is_not_shifted(bundle: Bundle, tmp_path: Path) -> None:
    pictures = [moving_square(i) for i in range(FRAMES)]
    video = write_video(tmp_path / "v.mp4", pictures, audio_codec="aac")
    with AudioReader(video) as audio:
        sound = (audio.format, list(audio))
    loud = write_file(tmp_path / "b.sglat", bundle, frames=FRAMES, audio=sound)
    assert file_variants.audio_shift_milliseconds(video, loud) == pytest.approx(0, abs=0.1)


def test_late_sound_is_measured(bundle: Bundle, tmp_path: Path) -> None:
    pictures = [moving_square(i) for i in range(FRAMES)]
    video = write_video(tmp_path / "v.mp4", pictures, audio_codec="aac")
    with AudioReader(video) as audio:
        sound = (audio.format, list(audio)[5:])  # 5 packets of 1024 samples at 48 kHz
    loud = write_file(tmp_path / "b.sglat", bundle, frames=FRAMES, audio=sound)
    late = file_variants.audio_shift_milliseconds(video, loud)
    assert late == pytest.approx(5 * 1024 / 48, abs=0.1)


def test_source_crops_are_cut_at_the_placement(path: Path, tmp_path: Path) -> None:
    pictures = [moving_square(i) for i in range(FRAMES)]
    video = write_video(tmp_path / "v.mp4", pictures)
    small, crops = (
        file_variants.source_crops(video, file_variants.parse(path), side) for side in (16, 32)
    )
    assert crops.shape == (FRAMES, 32, 32, 3)
    assert len({crop.tobytes() for crop in crops}) > FRAMES // 2
    halved = crops.reshape(FRAMES, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(halved - small).mean() < 3


def test_a_clip_of_another_length_is_refused(path: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [moving_square(i) for i in range(FRAMES - 5)])
    with pytest.raises(UsageError, match="frame-count"):
        file_variants.source_crops(video, file_variants.parse(path), 16)


def test_a_file_without_motion_is_refused(tmp_path: Path, bundle: Bundle, path: Path) -> None:
    cut = tmp_path / "cut.sglat"
    cut.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match="no-motion"):
        rates.file_cost(cut)


def test_lost_frames_are_straight_lines_and_the_others_untouched() -> None:
    values = np.arange(48)[:, None].repeat(34, axis=1).astype(np.int32)
    values[20:24] += 100
    is_lost = np.zeros(48, bool)
    is_lost[12:36] = True
    shown = file_variants.concealed(values, is_lost)
    assert (shown == np.arange(48)[:, None]).all()


def test_after_the_last_frame_that_arrived_it_is_held() -> None:
    values = np.arange(24)[:, None].repeat(34, axis=1).astype(np.int32)
    is_lost = np.arange(24) >= 12
    assert (file_variants.concealed(values, is_lost)[12:] == 11).all()


def test_the_share_of_lost_groups_is_the_one_asked_for() -> None:
    lost = file_variants.lost_groups(12 * 4000, 0.3, np.random.default_rng(0))
    assert not lost[:12].any()
    assert lost.mean() == pytest.approx(0.3, abs=0.02)


def test_without_loss_nothing_changes(path: Path, tmp_path: Path) -> None:
    found = file_variants.lossy_file(path, tmp_path / "b.sglat", 0.0, seed=0)
    assert found["frames_lost"] == 0
    shown = file_variants.parse(tmp_path / "b.sglat").motion.values
    assert (shown == file_variants.parse(path).motion.values).all()


def test_damage_is_counted_and_every_trial_accounted_for(path: Path) -> None:
    for found in file_variants.corruption(path, trials=12).values():
        assert found["refused"] + found["unnoticed"] + found["crashed"] == found["tried"] == 12
        assert found["refused"] == 12


def test_short_groups_cost_more(path: Path, tmp_path: Path) -> None:
    short = file_variants.small_group_cost(path, tmp_path / "b.sglat", 4)
    long = file_variants.small_group_cost(path, tmp_path / "c.sglat", 256)
    assert short > long


def test_frames_are_spread_from_the_first_to_the_last() -> None:
    assert file_variants.spread(101, 5).tolist() == [0, 25, 50, 75, 100]
    assert file_variants.spread(3, 5).tolist() == [0, 1, 2]


def test_every_byte_of_a_file_counts_for_a_stream_once(bundle: Bundle, tmp_path: Path) -> None:
    path = write_file(tmp_path / "c.sglat", bundle, consent="yes", source_sha256=b"1" * 32)
    streams = rates.file_rates(path)["bytes_by_stream"]
    parts = rate.sizes_of(path.read_bytes())
    assert streams.pop("total") == sum(streams.values()) == path.stat().st_size
    named = ("identity", "placement", "motion", "sound", "header", "frame")
    assert parts["bytes"] == sum(parts[name] for name in named)


@pytest.mark.parametrize("frame", [Fraction(1, 25), Fraction(1, 30), Fraction(1001, 30000)])
def test_before_the_end_of_the_first_frames_lie_exactly_those(
    tmp_path: Path, frame: Fraction
) -> None:
    pictures = [moving_square(i) for i in range(FRAMES)]
    video = write_video(tmp_path / "v.mp4", pictures, time_base=frame)
    end = file_variants.end_of(video, FRAMES - 2)
    assert end is not None
    with VideoReader(Clip(path=video, end_seconds=exact_seconds(end))) as part:
        assert len(list(part)) == FRAMES - 2
    assert file_variants.end_of(video, FRAMES) is None
