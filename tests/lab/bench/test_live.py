"""The bench of live calls: its link, and what loss does to a short call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sglat_lab.bench.live import Link, bench
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_the_link_loses_its_share_in_bursts(loss: float) -> None:
    arrivals = Link(loss=loss).arrivals(np.arange(20_000) * 0.08)
    lost = np.isinf(arrivals)
    assert lost.mean() == pytest.approx(loss, abs=0.01)
    bursts = np.count_nonzero(np.diff(lost.astype(int)) == 1)
    if loss:
        assert lost.sum() / bursts == pytest.approx(2.0, abs=0.1)


def test_a_short_call_gets_worse_with_loss_and_keeps_its_rate(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    path = write_file(tmp_path / "clip.sglat", bundle, frames=60)
    rows = bench([path], seconds=8)["rows"]
    two = [row for row in rows if row["frames_a_packet"] == 2]
    clean, worst = two[0], two[-1]
    assert clean["frozen_share"] < 0.03 and clean["error_rms_steps"] < 1
    assert worst["loss"] == 0.3 and worst["error_rms_steps"] > clean["error_rms_steps"]
    assert worst["delay_p95_ms"] > clean["delay_p95_ms"]
