"""The measurement of a machine with a GPU, run on the processor: every part, time, failures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sglat.bundles.bundle import Bundle
from sglat.encoder import analysis as analysis_module
from sglat.encoder.paper_solver import PaperConfig
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.bench import gpu
from tests.encoder.test_encode import draw_clip, drawn_bundle

LARGE = GeneratorConfig(resolution=32, channels=(8, 8, 8, 8), style_dim=8, latent_dim=8)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    bundle = drawn_bundle(tmp_path / "tiny")
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
    monkeypatch.setattr(gpu, "load_bundle", lambda name, device: bundle)
    monkeypatch.setitem(PaperConfig.__init__.__kwdefaults__, "epochs", 2)
    return bundle


@pytest.fixture
def config(tmp_path: Path) -> gpu.GpuConfig:
    clip = draw_clip(tmp_path / "in.mp4", 4)
    return gpu.GpuConfig(
        clip=clip, device="cpu", tune_steps=2, large=LARGE, batches=(1, 2), rounds=1
    )


def test_every_part_is_measured_and_written(
    bundle: Bundle, config: gpu.GpuConfig, tmp_path: Path
) -> None:
    record = gpu.measure(config, tmp_path / "gpu.json")
    assert json.loads((tmp_path / "gpu.json").read_text()) == record
    assert record["left_out"] == []
    assert list(record["parts"]) == [
        "decode 16 px, 16 bit, eager",
        "decode 32 px of random weights, 16 bit, eager",
        "encode at 16 px",
        "encode by the paper's solver",
        "decode 16 px, float32, eager",
        "decode 32 px of random weights, float32, eager",
    ]
    for name, part in record["parts"].items():
        assert part["megabytes"] > 0, name
        if name.startswith("encode"):
            assert part["frames"] == 4
            assert {"tune", "jacobian", "expression"} <= set(part["stage_seconds"])
        else:
            rows = part["batch"]
            assert set(rows) == {"1", "2"}
            for row in rows.values():
                milliseconds = 1e3 / row["frames_per_second"]
                assert milliseconds == pytest.approx(row["milliseconds_a_frame"], rel=0.02)


def test_a_failing_part_is_named_and_the_others_go_on(
    bundle: Bundle, config: gpu.GpuConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("out of memory\nand a trace")

    monkeypatch.setattr(gpu, "encode", fail)
    record = gpu.measure(config, tmp_path / "gpu.json")
    assert record["parts"]["encode at 16 px"] == {"error": "out of memory"}
    assert "batch" in record["parts"]["decode 16 px, float32, eager"]


def test_what_there_is_no_time_for_is_named(
    bundle: Bundle, config: gpu.GpuConfig, tmp_path: Path
) -> None:
    record = gpu.measure(replace(config, minutes=-1), tmp_path / "gpu.json")
    assert record["parts"] == {}
    assert "encode by the paper's solver" in record["left_out"]


def test_a_benchmark_is_run_by_the_name_of_its_module() -> None:
    command = [sys.executable, "-m", "sglat_lab.bench"]
    done = subprocess.run([*command, "gpu", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--minutes" in done.stdout
    done = subprocess.run([*command, "gpus"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "expected the name of a benchmark, found gpus: one of" in done.stderr
