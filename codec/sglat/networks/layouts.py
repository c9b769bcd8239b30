"""Checkpoint layouts: which tensor of a published file is which of ours; names and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from sglat.errors import BundleError
from sglat.networks.stylespace import GeneratorConfig


def prototype_names(config: GeneratorConfig) -> dict[str, str]:
    """Return our name → the study prototype's name (`convs.0.aff.w`), for the generator."""
    names = {"const": "const"}
    convs = [entry.index for entry in config.style_table if entry.kind != "torgb"]
    colours = [entry.index for entry in config.style_table if entry.kind == "torgb"]
    for theirs, indices in (("convs", convs), ("rgbs", colours)):
        for position, index in enumerate(indices):
            for ours, short in _PROTOTYPE_PARTS.items():
                names[f"layers.{index}.{ours}"] = f"{theirs}.{position}.{short}"
    return names


_PROTOTYPE_PARTS: Final = {
    "weight": "w",
    "bias": "b",
    "affine.weight": "aff.w",
    "affine.bias": "aff.b",
}


def from_prototype(state: Mapping[str, Tensor], config: GeneratorConfig) -> dict[str, Tensor]:
    """Rename the prototype's tensors; the mean latent, which it lacks, is 0."""
    names = prototype_names(config)
    missing = sorted(set(names.values()) - set(state))
    if missing:
        raise BundleError("missing-tensors", f"expected {missing[0]!r} and {len(missing) - 1} more")
    renamed = {ours: state[theirs].float() for ours, theirs in names.items()}
    renamed["w_avg"] = renamed["const"].new_zeros(config.style_dim)
    return renamed
