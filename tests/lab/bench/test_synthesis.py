"""Times of synthesis: one picture by all paths, the best of interleaved rounds."""

from __future__ import annotations

import pytest
import torch

from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.bench import synthesis
from sglat_lab.report.pages import page, targets

CONFIG = GeneratorConfig(resolution=16, channels=(8, 8, 8), style_dim=8, latent_dim=8)


def test_the_fast_path_draws_the_reference_s_picture() -> None:
    torch.set_grad_enabled(True)
    row = synthesis.measure(
        "tiny", CONFIG, device=torch.device("cpu"), rounds=2, clock=synthesis.CLOCKS["wall"]
    )
    assert row["difference"] < 1e-4 * row["largest"]
    assert set(row["milliseconds"]) == {"reference", "trainable", "fast"}
    assert row["ratio"]["reference"] == 1
    times = row["milliseconds"]
    assert row["ratio"]["fast"] == pytest.approx(times["reference"] / times["fast"])


def test_each_call_keeps_its_best_round_by_its_clock() -> None:
    ticks = iter([0.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 9.0])
    best = synthesis.best_times(
        {"a": lambda: torch.zeros(1), "b": lambda: torch.zeros(1)},
        rounds=2, device=torch.device("cpu"), clock=lambda: next(ticks),
    )  # fmt: skip
    assert best == {"a": 1000.0, "b": 1000.0}


def test_a_ratio_below_its_target_is_bold_on_the_page() -> None:
    def row(name: str, fast: float) -> dict[str, object]:
        times = {"reference": 30.0, "trainable": 20.0, "fast": 30.0 / fast}
        ratio = {"reference": 1.0, "trainable": 1.5, "fast": fast}
        return {"generator": name, "device": "cpu", "milliseconds": times, "ratio": ratio,
                "difference": 1e-6, "largest": 3.0}  # fmt: skip

    text = page("synthesis", {
        "clock": "wall", "rounds": 2, "targets": targets("synthesis"),
        "machines": [{"name": "here", "rows": [row("slow", 1.5), row("quick", 2.5)]}],
        "runs": [{"commit": "abc"}],
    })  # fmt: skip
    slow, quick = (
        next(line for line in text.splitlines() if line.startswith(f"| {n} |"))
        for n in ("slow", "quick")
    )
    assert "**1.50**" in slow
    assert "| 2.50 |" in quick
