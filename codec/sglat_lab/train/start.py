"""Where a training run starts: from a bundle's weights, and from those of a smaller picture.

A generator grown to twice the side draws at first what it drew before: its new ToRGB layers add
nothing, and the new style rows begin as the last row was (Karras et al. 2018,
https://arxiv.org/abs/1710.10196, section 2, grows by fading in; a layer that starts at nothing
needs no schedule).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sglat.bundles.bundle import load_bundle
from sglat.networks.stylegan2 import Generator, ToRGB
from sglat_lab.train.mini_model import MiniModel

_ROWS = ("inverter.offsets.weight", "inverter.offsets.bias")


@torch.no_grad()
def grown(state: Mapping[str, Tensor], model: MiniModel) -> dict[str, Tensor]:
    """Return the weights of a model whose generator draws a smaller picture, for a larger one.

    Args:
        state: of a `MiniModel` of the same widths.
        model: whose shapes are wanted; what is new keeps its weights, but for ToRGB layers.

    Raises:
        ValueError: the shapes differ in more than the picture's side.
    """
    expected = model.state_dict()
    if left := sorted(set(state) - set(expected)):
        raise ValueError(f"expected no more than {len(expected)} weights, found {left[0]} too")
    result: dict[str, Tensor] = {}
    new = {f"generator.{name}" for name in _new_colours(model.generator, state)}
    for name, wanted in expected.items():
        found = state.get(name)
        if found is None:
            if not name.startswith("generator.layers."):
                raise ValueError(f"expected {name}, found none")
            result[name] = torch.zeros_like(wanted) if name in new else wanted
        elif found.shape == wanted.shape:
            result[name] = found
        elif name in _ROWS:
            width = model.generator.config.style_dim
            more = (len(wanted) - len(found)) // width
            result[name] = torch.cat([found, *[found[-width:]] * more])
        elif name == "directions":
            rest = wanted.shape[1] - found.shape[1]
            result[name] = torch.cat([found, found.new_zeros(len(found), rest)], 1)
        else:
            raise ValueError(
                f"expected {name} of shape {tuple(wanted.shape)}, found {tuple(found.shape)}"
            )
    return result


def _new_colours(generator: Generator, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights of ToRGB layers that a state does not have."""
    return [
        f"layers.{index}.{part}"
        for index, layer in enumerate(generator.layers)
        for part in ("weight", "bias")
        if isinstance(layer, ToRGB) and f"generator.layers.{index}.weight" not in state
    ]


def load_start(model: MiniModel, folder: Path) -> None:
    """Copy the parts of a bundle into the model, grown where its picture is larger; the bundle's
    mapping network is not trained here and stays behind."""
    bundle = load_bundle(folder)
    state = {
        f"{part}.{name}": value
        for part, network in (
            ("generator", bundle.generator),
            ("inverter", bundle.inverter),
            ("pose_flow", bundle.module("pose_flow")),
            ("estimator", bundle.module("estimator")),
        )
        for name, value in network.state_dict().items()
        if not name.startswith("mapping.")
    }
    config = bundle.generator.config
    matrices = bundle.controls.matrix.float().split(list(config.style_widths), dim=1)
    kept = [m for m, e in zip(matrices, config.style_table, strict=True) if e.kind != "torgb"]
    state["directions"] = torch.cat(kept, dim=1)
    model.load_state_dict(grown(state, model))
