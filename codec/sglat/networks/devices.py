"""In which type of number features are computed."""

from __future__ import annotations

import platform

import torch


def _computes_in_bfloat16() -> bool:
    """Whether bfloat16 is the faster on this processor.

    Imitating it is slower than float32, and so are Intel's vector instructions for it by
    themselves, without tiles (AMX): they take twice as long as float32's. AMD's are faster.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        if torch.cpu._is_amx_tile_supported():
            return True
        return torch.cpu._is_avx512_bf16_supported() and not _is_from_intel()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_from_intel() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "intel" in str(capabilities.get("cpu_name", "")).lower()


def fast_type(device: torch.device) -> torch.dtype:
    """Return the type of features in which a device is fastest, bfloat16 or float32."""
    if device.type == "cpu":
        has_bfloat16 = _computes_in_bfloat16()
    else:  # older GPUs imitate it, slowly; MPS has it from macOS 14 on
        is_cuda = device.type == "cuda"
        has_bfloat16 = is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def feature_type(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of features that a word means on a device.

    Args:
        precision: `bf16`, `fp32`, or `auto`: what is fastest.
        device: where features are computed.

    Raises:
        ValueError: another word.
    """
    types = {
        "auto": fast_type(device), "bf16": torch.bfloat16, "fp32": torch.float32,
    }  # fmt: skip
    if precision not in types:
        raise ValueError(f"precision: expected auto, bf16 or fp32, found {precision}")
    return types[precision]
