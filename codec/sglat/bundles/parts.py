"""Which network each kind of part is, and how its stored tensors become a module ready for use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from sglat.bundles.manifest import PartRecord
from sglat.errors import BundleError, SglatError
from sglat.networks.layouts import state_of


class Kind(NamedTuple):
    """Where a kind of network is defined; resolved when it is first needed."""

    module: str
    """In `sglat.networks`."""
    network: str
    config: str = ""
    """Name of the config class beside it; empty where the network takes none."""

    def resolve(self, name: str) -> Any:
        """Return a class of the module."""
        return getattr(import_module(f"sglat.networks.{self.module}"), name)


KINDS: Final = {
    "stylegan2": Kind("stylegan2", "Generator", "GeneratorConfig"),
    "embedded_inverter": Kind("inverter", "Inverter", "InverterConfig"),
    "embedded_pose_flow": Kind("pose_flow", "PoseFlow", "PoseFlowConfig"),
    "e4e": Kind("inverter", "Encoder4Editing", "E4EConfig"),
    "styleflow": Kind("pose_flow", "StyleFlow", "StyleFlowConfig"),
    "arcface": Kind("published_nets", "ArcFace"),
    "bisenet": Kind("published_nets", "BiSeNet"),
    "lpips_alex": Kind("perceptual", "Lpips"),
    "motion_estimator": Kind("motion_estimator", "MotionEstimator"),
    "embedded_detector": Kind("embedded_nets", "DetectorNetwork"),
    "embedded_landmarks": Kind("embedded_nets", "LandmarkNetwork"),
    "embedded_parsing": Kind("embedded_nets", "ParsingNetwork"),
    "embedded_identity": Kind("embedded_nets", "IdentityNetwork"),
    "embedded_perceptual": Kind("embedded_perceptual", "PerceptualNetwork"),
}
_BUILT_OF_TENSORS: Final = "lpips_alex"  # its package builds it of the backbone's tensors


def build_network(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of a kind of `KINDS`; `config` holds its sizes, plain JSON
    values."""
    if kind not in KINDS:
        raise BundleError("unknown-kind", f"expected one of {sorted(KINDS)}, found {kind!r:.80}")
    entry = KINDS[kind]
    network = entry.resolve(entry.network)
    try:
        with torch.random.fork_rng(devices=[]):  # random start weights are overwritten at once
            if not entry.config:
                built = network(**config)
            else:
                built = network(_config(entry.resolve(entry.config), config))
    except SglatError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BundleError("bad-config", f"{kind}: {reason}") from error
    assert isinstance(built, nn.Module)
    return built


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], *, place: str) -> nn.Module:
    """Copy stored tensors into a network, exactly; half precision widens to the network's type.

    Returned is the network, in evaluation mode and without gradients; `place` is the file's name,
    for messages.
    """
    # not strict: counters of batch normalisation are not stored
    network.load_state_dict(state_of(network, tensors, source=place), strict=False)
    return network.eval().requires_grad_(False)


def load_network(part: PartRecord, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a part's network and fill it; raises BundleError, MissingExtraError."""
    if part.kind == _BUILT_OF_TENSORS:
        network: nn.Module = KINDS[part.kind].resolve("Lpips")(backbone=tensors)
        return network.eval().requires_grad_(False)
    return fill_network(build_network(part.kind, part.config), tensors, place=part.file)


def _config(config_class: Any, record: Mapping[str, Any]) -> Any:
    """Make a config dataclass of JSON values, whose lists become tuples."""
    if hasattr(config_class, "from_json"):
        return config_class.from_json(record)
    assert callable(config_class)
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return config_class(**values)
