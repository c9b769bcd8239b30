"""Devices and the types of numbers on them."""

from __future__ import annotations

import platform

import pytest
import torch

from sglat.errors import UsageError
from sglat.networks.devices import choose_device, fast_type, feature_type, renders_in_half

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "has_tiles", "has_bfloat16", "wanted"),
    [
        ("Intel Xeon", True, True, torch.bfloat16),
        ("Intel Xeon", False, True, torch.float32),
        ("AMD EPYC", False, True, torch.bfloat16),
        ("AMD EPYC", False, False, torch.float32),
        (None, False, True, torch.bfloat16),
    ],
)
def test_features_are_of_the_type_in_which_a_processor_is_fast(
    monkeypatch: pytest.MonkeyPatch,
    name: str | None,
    has_tiles: bool,
    has_bfloat16: bool,
    wanted: torch.dtype,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
    known = {} if name is None else {"cpu_name": name}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert fast_type(CPU) == feature_type("auto", CPU) == wanted
    assert renders_in_half(CPU) == (wanted == torch.bfloat16)


def test_a_type_can_be_asked_for_by_name() -> None:
    assert feature_type("bf16", CPU) == torch.bfloat16
    assert feature_type("fp32", CPU) == torch.float32
    with pytest.raises(ValueError, match="expected auto, bf16 or fp32, found half"):
        feature_type("half", CPU)


def test_an_unknown_device_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="bad-device"):
        choose_device("abacus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="no-device"):
        choose_device("cuda")
