"""Reads golden cases: weights by the folder's own `fill.py`, inputs, expected values, tolerances.

Nothing here knows seeds or inputs; another set of the same form works as well.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.support.shared import GOLDEN


@cache
def _fill() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, kw_only=True)
class GoldenCase:
    """One folder of golden vectors."""

    path: Path
    inputs: dict[str, NDArray[Any]]
    expected: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    def tensor(self, name: str) -> Tensor:
        """Return an input as a tensor of its own type."""
        return torch.from_numpy(np.ascontiguousarray(self.inputs[name]))

    def weights(self, keep: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
        """Fill the checkpoint; names carry their container and a dot in front of them."""
        fill = _fill()
        manifest = fill.load_manifest(self.path / "manifest.json")
        tensors: dict[str, Tensor] = {}
        for entry in manifest["tensors"]:
            name = f"{entry['container']}.{entry['name']}".removeprefix(".")
            if keep(name):
                array = np.asarray(fill.fill_tensor(entry, manifest["seed"]))
                tensors[name] = torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)
        return tensors

    def check(self, name: str, found: Tensor, *, output: str | None = None) -> None:
        """Assert that a result lies within the case's own tolerance of the expected array."""
        expected = self.expected[name]
        atol = float(self.meta["tolerance"][output or name]["recommended_atol"])
        assert tuple(found.shape) == expected.shape
        difference = float(np.abs(found.double().numpy() - expected.astype(np.float64)).max())
        assert difference <= atol, f"{name}: {difference:.3g} away, at most {atol:.3g} allowed"

    def check_picture(self, key: str, found: Tensor, *, stride: int) -> None:
        """Compare a picture's samples, crop, statistics and, if kept, all of it."""
        offset, size = stride // 2 - 1, found.shape[-1]
        corner = size // 2 - 32
        inside = slice(corner, corner + 64)
        parts = {
            f"{key}_sub{stride}": found[:, :, offset::stride, offset::stride],
            f"{key}_crop64": found[:1, :, inside, inside],
            f"{key}_full0": found[:1],
            f"{key}_stats": torch.stack(
                [
                    found.double().mean(dim=(2, 3)),
                    found.double().std(dim=(2, 3), unbiased=False),
                    found.double().amin(dim=(2, 3)),
                    found.double().amax(dim=(2, 3)),
                ],
                dim=2,
            ),
        }
        kept = [name for name in parts if name in self.expected]
        assert f"{key}_sub{stride}" in kept
        for name in kept:
            self.check(name, parts[name], output=key)


def golden_case(name: str) -> GoldenCase:
    """Open a case, or skip the calling test where the folder is absent."""
    path = GOLDEN / name
    if not (path / "meta.json").exists():
        pytest.skip(f"needs golden vectors {name} (set SGLAT_GOLDEN)")
    return GoldenCase(
        path=path,
        inputs=_arrays(path / "inputs.npz"),
        expected=_arrays(path / "expected.npz"),
        meta=json.loads((path / "meta.json").read_text(encoding="utf-8")),
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
