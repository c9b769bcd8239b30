"""A clear skip, or a failure where a GPU was promised, for tests that need one."""

from __future__ import annotations

import os

import pytest
import torch


def require_cuda() -> None:
    """Skip the calling test without a CUDA device; fail it if `SGLAT_REQUIRE` names `gpu`."""
    if torch.cuda.is_available():
        return
    reason = "needs a CUDA device, this machine has none"
    if "gpu" in os.environ.get("SGLAT_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)
