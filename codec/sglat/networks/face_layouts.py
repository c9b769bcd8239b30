"""Checkpoints of the networks around the generator: inverter, identity, parsing, pose flow.

Takes a file's tensors, containers joined with dots, and returns our state; reading files is not
done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from sglat.errors import BundleError
from sglat.networks.arcface import ArcFace
from sglat.networks.bisenet import BiSeNet
from sglat.networks.e4e import E4EConfig, Encoder4Editing
from sglat.networks.layouts import TensorName, take
from sglat.networks.styleflow import StyleFlow, StyleFlowConfig

_COUNTER: Final = "num_batches_tracked"  # of batch normalisation; matters in training only


def read_arcface(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Return the state of `ArcFace`; raises BundleError."""
    with torch.device("meta"):
        return _take_module(tensors, ArcFace(), source=source)


def read_bisenet(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Return the state of `BiSeNet`; raises BundleError."""
    with torch.device("meta"):
        return _take_module(tensors, BiSeNet(), source=source)


def read_e4e(tensors: Mapping[str, Tensor], *, source: str) -> tuple[E4EConfig, dict[str, Tensor]]:
    """Return the config and state of `Encoder4Editing` in a complete e4e checkpoint.

    The checkpoint's generator is read by `layouts.read_generator`.
    """
    marks = [name for name in tensors if name.endswith("encoder.latlayer1.weight")]
    if len(marks) != 1:
        raise BundleError(
            "no-inverter",
            f"{source}: expected one tensor encoder.latlayer1.weight, found {len(marks)}",
        )
    prefix = marks[0].removesuffix("latlayer1.weight")
    inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if "latent_avg" not in tensors:
        raise BundleError("missing-tensors", f"{source}: expected latent_avg, found none")
    inside["latent_avg"] = tensors["latent_avg"]
    heads = sum(name.endswith(".linear.weight") for name in inside)
    config = E4EConfig(num_ws=heads, style_dim=inside["latlayer1.weight"].shape[0])
    if inside["latent_avg"].ndim == 1:  # one mean for all rows
        inside["latent_avg"] = inside["latent_avg"].expand(heads, -1)
    with torch.device("meta"):
        return config, _take_module(inside, Encoder4Editing(config), source=source)


def styleflow_names(config: StyleFlowConfig) -> Iterable[TensorName]:
    """Return the table of StyleFlow's published state dict."""
    theirs = {"before": "chain.0", "after": "chain.2"}
    parts = {"linear": "_layer", "gate": "_hyper_gate", "shift": "_hyper_bias"}
    with torch.device("meta"):
        own = StyleFlow(config).state_dict()
    for name, tensor in own.items():
        place = name.split(".")
        if place[0] == "layers":
            layer = f"chain.1.odefunc.diffeq.layers.{place[1]}.{parts[place[2]]}.{place[3]}"
        elif place[0] == "sqrt_end_time":
            layer = "chain.1.sqrt_end_time"
        else:
            layer = f"{theirs[place[0]]}.{place[1]}"
        shape = tuple(tensor.shape)
        yield TensorName(ours=name, theirs=layer, shape=shape, our_shape=shape)


def read_styleflow(
    tensors: Mapping[str, Tensor], config: StyleFlowConfig, *, source: str
) -> dict[str, Tensor]:
    """Return the state of `StyleFlow`; raises BundleError."""
    ignored = ("chain.0.step", "chain.2.step", "chain.1.odefunc._num_evals")
    return take(tensors, styleflow_names(config), source=source, ignored=ignored)


def _take_module(
    tensors: Mapping[str, Tensor], module: nn.Module, *, source: str
) -> dict[str, Tensor]:
    """Take tensors whose names are ours already."""
    names = [
        TensorName(ours=name, theirs=name, shape=tuple(t.shape), our_shape=tuple(t.shape))
        for name, t in module.state_dict().items()
        if not name.endswith(_COUNTER)
    ]
    counters = [name for name in tensors if name.endswith(_COUNTER)]
    return take(tensors, names, source=source, ignored=counters)
