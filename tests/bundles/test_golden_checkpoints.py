"""Checkpoints with the names and shapes of the published ones: file → bundle → network, exactly."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sglat.bundles.bundle import load_bundle
from sglat.bundles.store import import_own
from sglat.networks.layouts import read_generator
from tests.support.shared import shared_path

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))


def filled(case: str) -> dict[str, Any]:
    """Return the tensors of a golden case, nested as in the published file."""
    rule = importlib.util.spec_from_file_location("fill", shared_path("golden/fill.py"))
    assert rule is not None and rule.loader is not None
    fill = importlib.util.module_from_spec(rule)
    rule.loader.exec_module(fill)
    manifest = fill.load_manifest(shared_path(f"golden/{case}/manifest.json"))
    return to_torch(fill.fill_checkpoint(manifest))


def to_torch(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: to_torch(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)
    return value


def dotted(nested: dict[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= dotted(value, f"{prefix}{name}.")
        elif isinstance(value, torch.Tensor):
            flat[prefix + name] = value
    return flat


@pytest.mark.parametrize(
    ("case", "role"),
    [
        ("stylegan2_rosinality_256", "generator"),
        ("styleflow_cnf", "pose_flow"),
        ("bisenet_19", "faces_parsing"),
    ],
)
def test_every_value_of_the_file_arrives(tmp_path: Path, case: str, role: str) -> None:
    content = filled(case)
    path = tmp_path / f"{case}.pt"
    torch.save(content, path)
    import_own(path, "golden")
    bundle = load_bundle("golden")
    assert set(bundle.manifest.parts) == {role}
    stored = dotted(content)
    # batch counters, blur filters and solver statistics carry nothing learned
    unlearned = ("num_batches_tracked", "kernel", ".step", "_num_evals")
    loaded = bundle.module(role).state_dict()
    found = [checksum(tensor) for name, tensor in loaded.items() if not name.endswith(unlearned)]
    wanted = [checksum(tensor) for name, tensor in stored.items() if not name.endswith(unlearned)]
    assert sorted(found) == sorted(wanted)


def checksum(tensor: torch.Tensor) -> str:
    """Identify a tensor by its values in order, whatever its axes."""
    assert tensor.dtype == torch.float32
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def test_nvidias_module_pickle_gives_the_same_network(tmp_path: Path) -> None:
    """The golden NVIDIA weights, pickled as the official files are: nested persistent modules."""
    state = filled("stylegan2_nvidia_256")["G_ema"]
    path = tmp_path / "ffhq.pkl"
    with persistent_class() as layer:
        path.write_bytes(pickle.dumps({"G_ema": nest(state, layer), "D": None}, protocol=4))
    import_own(path, "golden")
    config, expected = read_generator(dotted({"G_ema": state}), source="golden")
    bundle = load_bundle("golden")
    assert bundle.config == config
    found = bundle.generator.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def nest(state: dict[str, torch.Tensor], layer: type[nn.Module]) -> nn.Module:
    root = layer()
    for name, tensor in state.items():
        *places, last = name.split(".")
        module = root
        for place in places:
            if place not in module._modules:
                module.add_module(place, layer())
            module = module._modules[place]  # type: ignore[assignment]
        module.register_buffer(last, tensor)
    return root


class persistent_class:
    """Puts a stand-in for `torch_utils.persistence` in place while a file is written."""

    def __enter__(self) -> type[nn.Module]:
        def _reconstruct_persistent_obj(meta: Any) -> None:
            raise AssertionError("the pickle was run")

        package, module = types.ModuleType("torch_utils"), types.ModuleType("persistence")
        _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
        self.fakes = {"torch_utils": package, "torch_utils.persistence": module}
        sys.modules.update(self.fakes)

        class Persistent(nn.Module):
            def __reduce__(self) -> tuple[Any, ...]:
                meta = {"type": "class", "version": 6, "class_name": "Layer"}
                meta |= {"module_src": "raise SystemExit", "state": self.__dict__}
                return _reconstruct_persistent_obj, (meta,)

        return Persistent

    def __exit__(self, *_: object) -> None:
        for name in self.fakes:
            del sys.modules[name]
