"""What an encoding states before it starts, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sglat.bundles.bundle import load_bundle
from sglat.encoder import needs as module
from sglat.encoder.analysis import begin
from sglat.encoder.config import EncodeConfig
from sglat.encoder.needs import check_memory, memory_bytes, needs_of
from sglat.errors import UsageError
from sglat.networks.stylespace import GeneratorConfig


def test_the_line_names_device_and_memory() -> None:
    line = needs_of(load_bundle(), EncodeConfig(device="cpu")).line()
    assert line.startswith("device cpu (chosen), about 1.")


def test_an_automatic_device_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "choose_device", lambda name: torch.device("cpu"))
    assert "no GPU found" in needs_of(load_bundle(), EncodeConfig()).line()


def test_full_size_needs_more_than_mini_and_fits_into_twenty_gigabytes() -> None:
    bundle = load_bundle()
    small = memory_bytes(bundle, EncodeConfig())
    bundle.__dict__["config"] = GeneratorConfig.config_f(1024)
    assert 2 * small < memory_bytes(bundle, EncodeConfig()) < 20e9


def test_too_little_memory_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda device: 10**9)
    bundle = load_bundle()
    with pytest.raises(UsageError, match=r"no-memory: .*1\.0 GB are free on cpu; close other"):
        check_memory(needs_of(bundle, EncodeConfig()), bundle)


def test_a_refused_encoding_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda device: 10**9)
    source = tmp_path / "a.mp4"
    source.write_bytes(b"not read")
    with pytest.raises(UsageError, match="no-memory"):
        begin(source, tmp_path / "work", EncodeConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_an_absent_device_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="use --device cpu"):
        needs_of(load_bundle(), EncodeConfig(device="cuda"))
