"""The probe of presets on stand-ins for enrolling, encoding and measuring."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sglat.encoder.config import EncodeConfig
from sglat_lab.bench import presets
from sglat_lab.report.pages import part
from tests.support.video import moving_square, write_video

QUALITY = {"live": 30.0, "best": 32.0}


def test_a_preset_is_compared_with_the_best_of_the_same_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "a.mp4", [moving_square(i) for i in range(10)])
    calls: list[tuple[Any, ...]] = []

    def encode(source: Path, target: Path, config: EncodeConfig, *, identity: Path) -> Any:
        calls.append((config.preset, config.start_seconds, identity.name, target.name))
        return SimpleNamespace(frames=5)

    def figures(measured: Any, source: Path, path: Path, start: float) -> dict[str, Any]:
        psnr = QUALITY["best" if "full" in path.name else "live"]
        return {"psnr": psnr, "perceptual": 0.1, "identity_loss": 1 / psnr, "jitter": 1.0}

    enrolled = []
    monkeypatch.setattr(
        presets.sglat, "enrol", lambda s, t, c: enrolled.append((c.preset, c.end_seconds)),
        raising=False,
    )  # fmt: skip
    monkeypatch.setattr(presets.sglat, "encode", encode, raising=False)
    monkeypatch.setattr(presets, "figures", figures)
    measured: Any = SimpleNamespace(out=tmp_path)
    found = presets.measure(measured, clip, "live", EncodeConfig())
    assert enrolled == [("live", 0.2)]
    assert calls == [
        ("live", 0.2, "a-live-me.sglat", "a-live.sglat"),
        ("best", 0.2, "a-live-me.sglat", "a-live-full.sglat"),
    ]
    assert found["psnr_lost"] == 2.0
    assert found["identity_loss_more"] == pytest.approx(1 / 30 - 1 / 32)


def test_the_page_has_a_row_for_each_preset() -> None:
    one = dict.fromkeys(presets.FIGURES, 1.0)
    two = one | {"psnr": 3.0}
    clips = {"a": {"live": one, "fast": one}, "b": {"live": two, "fast": one}}
    record = presets.record_of(clips, runs=[])
    assert record["mean"]["live"]["psnr"] == 2.0
    rows = [line for line in part("presets", **record).splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[3] for row in rows] == ["2.00", "1.00"]


def test_still_crops_have_less_jitter_than_moved_ones() -> None:
    faces = SimpleNamespace(
        landmarks=lambda picture, box: SimpleNamespace(
            points=np.full((478, 2), float(picture[0, 0, 0]))
        )
    )
    measured: Any = SimpleNamespace(bundle=SimpleNamespace(faces=faces))
    still = np.zeros((6, 16, 16, 3), np.uint8)
    moved = still + (np.arange(6) % 2).astype(np.uint8)[:, None, None, None]
    assert presets.jitter(measured, still) == 0
    assert (presets.jitter(measured, moved) or 0) > 0.5
