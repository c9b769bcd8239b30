"""The probe of presets on stand-ins for enrolling, encoding and measuring."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sglat.encoder.config import EncodeConfig
from sglat_lab.bench import presets
from sglat_lab.report.pages import part
from tests.support.video import moving_square, write_video


def test_a_person_of_the_first_half_is_followed_in_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "a.mp4", [moving_square(i) for i in range(10)])
    calls: list[tuple[Any, ...]] = []

    def enrol(sources: list[Path], target: Path, config: EncodeConfig) -> None:
        calls.append((config.preset, config.end_seconds, target.name))
        target.write_bytes(bytes(7))

    def encode(source: Path, target: Path, config: EncodeConfig, *, identity: Path) -> Any:
        calls.append((config.preset, config.start_seconds, identity.name, target.name))
        return SimpleNamespace(frames=5)

    monkeypatch.setattr(presets.sglat, "enrol", enrol, raising=False)
    monkeypatch.setattr(presets.sglat, "encode", encode, raising=False)
    monkeypatch.setattr(presets, "figures", lambda measured, source, path, start: {"psnr": start})
    measured: Any = SimpleNamespace(out=tmp_path)
    cost = presets.enrolled(measured, clip, "fast", EncodeConfig())
    found = presets.followed(measured, clip, "live", EncodeConfig(), "fast")
    assert calls == [
        ("fast", 0.2, "a-fast-me.sglat"), ("live", 0.2, "a-fast-me.sglat", "a-fast-live.sglat")
    ]  # fmt: skip
    assert cost["bytes"] == 7
    assert (found["psnr"], found["frames"]) == (0.2, 5)


def clip(psnr: float) -> dict[str, Any]:
    """Return the figures of a clip whose best is 2 dB above its quickest."""
    live = dict.fromkeys(presets.FIGURES, 1.0) | {"psnr": psnr, "identity_loss": 0.3}
    return {
        "enrol default": {"seconds": 9.0, "processor": 12.0, "bytes": 100},
        "default live": live,
        "default best": live | {"psnr": psnr + 2, "identity_loss": 0.25},
    }


def test_presets_are_compared_with_the_best_of_the_same_person() -> None:
    mean = presets.record_of({"a": clip(30.0), "b": clip(32.0)}, runs=[])["mean"]
    assert mean["default live"]["psnr"] == 31
    assert mean["default live"]["psnr_lost"] == 2
    assert mean["default live"]["identity_loss_more"] == pytest.approx(0.05)
    assert mean["default best"]["psnr_lost"] == 0


def test_the_page_has_a_row_for_each_enrolment_and_preset() -> None:
    record = presets.record_of({"a": clip(30.0)}, runs=[])
    rows = [line for line in part("presets", **record).splitlines() if line.startswith("| `")]
    assert rows[0] == "| `default` | 9 | 12 | 100 |"
    assert [row.split(" | ")[1] for row in rows[1:]] == ["`live`", "`best`"]
    assert [row.split(" | ")[3] for row in rows[1:]] == ["30.00", "32.00"]
