"""Device choice, float32 precision, and the fastest feature type of a device."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch

from sglat.errors import UsageError

DEVICES: Final = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; `auto` takes CUDA, then MPS, then the processor.

    Raises:
        UsageError: an unknown name, or a device that this machine does not have.
    """
    if name not in DEVICES:
        raise UsageError("bad-device", f"expected one of {', '.join(DEVICES)}, got {name!r}")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, is_there in present.items() if is_there)
    if not present[name]:
        raise UsageError("no-device", f"this machine has no {name}; use --device cpu")
    return torch.device(name)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Keep a GPU's float32 convolutions from rounding their inputs to 10 bits.

    The structural term of the encoder's loss takes small differences of large sums.
    """
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _computes_in_bfloat16() -> bool:
    """Return whether bfloat16 is faster than float32 on this processor.

    Emulation is slower than float32, and so are Intel's vector instructions for it without
    tiles (AMX): they take twice as long as float32's. AMD's are faster.
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
    else:  # older GPUs emulate it, slowly; MPS has it from macOS 14 on
        is_cuda = device.type == "cuda"
        has_bfloat16 = is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def renders_in_half(device: torch.device) -> bool:
    """Return whether pictures are rendered with 16-bit features by default: where that is faster.

    On a processor the picture then differs from float32's by some 62 dB, a quarter of a level.
    """
    return device.type == "cuda" or (device.type == "cpu" and fast_type(device) != torch.float32)


def feature_type(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of features for a precision: `bf16`, `fp32`, or `auto` for the device's
    fastest.

    Raises:
        ValueError: another precision.
    """
    types = {
        "auto": fast_type(device), "bf16": torch.bfloat16, "fp32": torch.float32,
    }  # fmt: skip
    if precision not in types:
        raise ValueError(f"precision: expected auto, bf16 or fp32, found {precision}")
    return types[precision]
