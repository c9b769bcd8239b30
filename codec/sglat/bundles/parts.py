"""Which network each kind of part is, and how its stored tensors become a module ready for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor, nn

from sglat.bundles.manifest import PartRecord
from sglat.errors import BundleError, SglatError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Where a kind of network is defined; resolved when it is first needed."""

    module: str
    network: str
    config: str = ""
    """Name of the config class beside it; empty where the network takes none."""
    takes_tensors: bool = False
    """The network is built from its stored tensors, given as `backbone`."""


KINDS: Final[dict[str, Kind]] = {
    "stylegan2": Kind(
        module="sglat.networks.stylegan2", network="Generator", config="GeneratorConfig"
    ),
    "embedded_inverter": Kind(
        module="sglat.networks.inverter", network="Inverter", config="InverterConfig"
    ),
    "embedded_pose_flow": Kind(
        module="sglat.networks.pose_flow", network="PoseFlow", config="PoseFlowConfig"
    ),
    "e4e": Kind(module="sglat.networks.e4e", network="Encoder4Editing", config="E4EConfig"),
    "styleflow": Kind(
        module="sglat.networks.styleflow", network="StyleFlow", config="StyleFlowConfig"
    ),
    "arcface": Kind(module="sglat.networks.arcface", network="ArcFace"),
    "bisenet": Kind(module="sglat.networks.bisenet", network="BiSeNet"),
    "lpips_alex": Kind(module="sglat.networks.perceptual", network="Lpips", takes_tensors=True),
    "motion_estimator": Kind(module="sglat.networks.motion_estimator", network="MotionEstimator"),
    "embedded_detector": Kind(module="sglat.networks.embedded_detector", network="DetectorNetwork"),
    "embedded_landmarks": Kind(module="sglat.networks.embedded_nets", network="LandmarkNetwork"),
    "embedded_parsing": Kind(module="sglat.networks.embedded_nets", network="ParsingNetwork"),
    "embedded_identity": Kind(module="sglat.networks.embedded_nets", network="IdentityNetwork"),
    "embedded_perceptual": Kind(
        module="sglat.networks.embedded_perceptual", network="PerceptualNetwork"
    ),
}


_COUNTER: Final = "num_batches_tracked"  # of batch normalisation; matters in training only


def build_network(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of a kind.

    Args:
        kind: a name of `KINDS`.
        config: the sizes, plain JSON values.

    Raises:
        BundleError: unknown kind, or a config that does not fit it.
    """
    if kind not in KINDS:
        raise BundleError("unknown-kind", f"expected one of {sorted(KINDS)}, found {kind!r:.80}")
    entry = KINDS[kind]
    module = import_module(entry.module)
    network = getattr(module, entry.network)
    try:
        with torch.random.fork_rng(devices=[]):  # random start weights are overwritten at once
            if not entry.config:
                built = network(**config)
            else:
                built = network(_config(getattr(module, entry.config), config))
    except SglatError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise BundleError("bad-config", f"{kind}: {_one_line(error)}") from error
    assert isinstance(built, nn.Module)
    return built


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], *, place: str) -> nn.Module:
    """Copy stored tensors into a network, exactly; half precision widens to the network's type.

    Args:
        network: as `build_network` returned it.
        tensors: by the network's own names.
        place: file name for the error message.

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        BundleError: a missing or surplus tensor or a wrong shape; names the first of each.
    """
    expected = {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    missing = sorted(set(expected) - set(tensors))
    surplus = sorted(
        name for name in tensors if name not in expected and not name.endswith(_COUNTER)
    )
    if missing:
        raise BundleError(
            "missing-tensors", f"{place}: expected {missing[0]!r} ({len(missing)} missing)"
        )
    if surplus:
        raise BundleError(
            "surplus-tensors", f"{place}: no place for {surplus[0]!r} ({len(surplus)} surplus)"
        )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise BundleError(
                "wrong-shape",
                f"{place}: {name}: expected {list(shape)}, found {list(tensors[name].shape)}",
            )
    network.load_state_dict(dict(tensors), strict=False)  # compared by name and shape above
    return network.eval().requires_grad_(False)


def load_network(part: PartRecord, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a part's network and fill it; raises BundleError, MissingExtraError."""
    entry = KINDS.get(part.kind)
    if entry is not None and entry.takes_tensors:
        network: nn.Module = getattr(import_module(entry.module), entry.network)(backbone=tensors)
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
