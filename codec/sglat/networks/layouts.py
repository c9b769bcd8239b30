"""Layouts of published checkpoints: tensor names and shapes of generators, inverters, networks of
faces and pose flows against ours.

A layout is one table of names and shapes. A generator's own names follow the StyleSpace index:
`layers.6.affine.weight` makes the style that `6:113` indexes. Files are read elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from sglat.errors import BundleError
from sglat.networks.inverter import E4EConfig, Encoder4Editing
from sglat.networks.pose_flow import StyleFlow, StyleFlowConfig
from sglat.networks.stylegan2 import MappingNetwork
from sglat.networks.stylespace import GeneratorConfig, StyleEntry

Layout = Literal["rosinality", "nvidia"]
Shape = tuple[int, ...]

# The blur filters that files carry along are fixed by the method; they are checked, not kept.
_FILTERS: Final = {
    "rosinality": re.compile(r"(convs\.\d+\.conv\.blur|to_rgbs\.\d+\.upsample)\.kernel"),
    "nvidia": re.compile(r"synthesis\.b\d+\.(conv\d\.|torgb\.)?resample_filter"),
}
_FILTER_GAIN: Final = {"rosinality": 4.0, "nvidia": 1.0}  # over outer([1, 3, 3, 1]) / 64
_MARKS: Final = {"rosinality": "input.input", "nvidia": "synthesis.b4.const"}
COUNTER: Final = "num_batches_tracked"  # of batch normalisation; matters in training only
_MEAN_LATENT_SAMPLES: Final = 4096  # rosinality's own default for `mean_latent`


@dataclass(frozen=True, kw_only=True)
class TensorName:
    """One tensor under both names; the values are the same, in the same order."""

    ours: str
    theirs: str
    shape: Shape
    """Shape in the other file."""
    our_shape: Shape | None = None
    """The same axes without leading and single ones; None: the same shape."""


@dataclass(frozen=True, kw_only=True)
class FoundGenerator:
    """A generator inside a checkpoint."""

    layout: Layout
    prefix: str
    """What stands before the layout's own names, `g_ema.` for instance."""


def find_generator(names: Iterable[str]) -> FoundGenerator | None:
    """Return layout and prefix of the averaged generator in a file, or None, by its tensor names,
    containers joined with dots: `g_ema.input.input`. Averaged weights win over the ones in
    training."""
    found: list[FoundGenerator] = []
    for name in names:
        for layout in ("rosinality", "nvidia"):
            mark = _MARKS[layout]
            if name == mark or name.endswith("." + mark):
                prefix = name.removesuffix(mark)
                found.append(FoundGenerator(layout=layout, prefix=prefix))
    found.sort(key=lambda item: ("ema" not in item.prefix.lower(), item.prefix))
    return found[0] if found else None


def names_of(layout: Layout, config: GeneratorConfig) -> tuple[TensorName, ...]:
    """Return the table of a layout for a generator of this shape, mean latent excluded."""
    build = _rosinality_names if layout == "rosinality" else _nvidia_names
    return tuple(build(config))


def read_generator(
    tensors: Mapping[str, Tensor], *, source: str
) -> tuple[GeneratorConfig, dict[str, Tensor]]:
    """Return the config and state of the generator in a checkpoint; `source` is the file's name,
    for messages."""
    found = find_generator(tensors)
    if found is None:
        raise BundleError(
            "no-generator",
            f"{source}: expected a tensor {_MARKS['rosinality']} or {_MARKS['nvidia']}, found "
            f"{len(tensors)} others",
        )
    inside = {
        name.removeprefix(found.prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(found.prefix)
    }
    mean = inside.pop("mapping.w_avg", inside.pop("latent_avg", tensors.get("latent_avg")))
    if found.prefix == "":  # the top level may hold more than a generator
        inside = {n: t for n, t in inside.items() if _belongs_to_generator(n, found.layout)}
    _take_filters(inside, found.layout, source)
    config = _config_of(inside, found.layout, source)
    state = take(inside, names_of(found.layout, config), source=source)
    state["w_avg"] = _mean_latent(mean, state, config, source)
    return config, state


def take(
    tensors: Mapping[str, Tensor],
    names: Iterable[TensorName],
    *,
    source: str,
    ignored: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Rename and reshape tensors; anything missing, unknown or misshapen is one clear error."""
    table = {name.theirs: name for name in names}
    missing = [name for name in table if name not in tensors]
    if missing:
        raise BundleError(
            "missing-tensors",
            f"{source}: expected {len(table)} tensors, {len(missing)} are missing, "
            f"first {missing[0]} {list(table[missing[0]].shape)}",
        )
    unknown = sorted(set(tensors) - set(table) - set(ignored))
    if unknown:
        raise BundleError(
            "unexpected-tensors",
            f"{source}: expected {len(table)} tensors, found {len(unknown)} more, "
            f"first {unknown[0]} {list(tensors[unknown[0]].shape)}",
        )
    for theirs, name in table.items():
        if tuple(tensors[theirs].shape) != name.shape:
            raise BundleError(
                "wrong-shape",
                f"{source}: expected {theirs} {list(name.shape)}, "
                f"found {list(tensors[theirs].shape)}",
            )
    return {
        name.ours: tensors[theirs]
        .float()
        .reshape(name.shape if name.our_shape is None else name.our_shape)
        for theirs, name in table.items()
    }


def _entry_shapes(entry: StyleEntry, config: GeneratorConfig) -> dict[str, Shape]:
    """Return our tensors of one layer, without the `layers.N.` before them."""
    side = 1 if entry.kind == "torgb" else 3
    shapes: dict[str, Shape] = {
        "weight": (entry.outputs, entry.channels, side, side),
        "bias": (entry.outputs,),
        "affine.weight": (entry.channels, config.style_dim),
        "affine.bias": (entry.channels,),
    }
    if entry.kind != "torgb" and config.noise:
        shapes["noise_strength"] = ()
        shapes["noise"] = (entry.resolution, entry.resolution)
    return shapes


def _mapping_names(config: GeneratorConfig, pattern: str) -> Iterable[TensorName]:
    for position in range(config.mapping_layers):
        inputs = config.latent_dim if position == 0 else config.style_dim
        shapes = (("weight", (config.style_dim, inputs)), ("bias", (config.style_dim,)))
        for part, shape in shapes:
            yield TensorName(
                ours=f"mapping.layers.{position}.{part}",
                theirs=f"{pattern.format(position, position + 1)}.{part}",
                shape=shape,
            )


def _rosinality_names(config: GeneratorConfig) -> Iterable[TensorName]:
    yield from _mapping_names(config, "style.{1}")
    constant = (1, config.channels[0], 4, 4)
    yield TensorName(ours="const", theirs="input.input", shape=constant)
    convs = colours = 0
    for entry in config.style_table:
        if entry.kind == "torgb":
            layer = f"to_rgbs.{colours - 1}" if colours else "to_rgb1"
            bias, noise = f"{layer}.bias", ""
            colours += 1
        else:
            layer = f"convs.{convs - 1}" if convs else "conv1"
            bias, noise = f"{layer}.activate.bias", f"noises.noise_{convs}"
            convs += 1
        theirs = {
            "weight": f"{layer}.conv.weight",
            "bias": bias,
            "affine.weight": f"{layer}.conv.modulation.weight",
            "affine.bias": f"{layer}.conv.modulation.bias",
            "noise_strength": f"{layer}.noise.weight",
            "noise": noise,
        }
        for part, shape in _entry_shapes(entry, config).items():
            their_shape = {
                "weight": (1, *shape),
                "bias": (1, *shape, 1, 1) if entry.kind == "torgb" else shape,
                "noise_strength": (1,),
                "noise": (1, 1, *shape),
            }.get(part, shape)
            yield TensorName(
                ours=f"layers.{entry.index}.{part}",
                theirs=theirs[part],
                shape=their_shape,
                our_shape=shape,
            )


_NVIDIA_LAYERS: Final = {"conv_up": "conv0", "conv": "conv1", "torgb": "torgb"}


def _nvidia_names(config: GeneratorConfig) -> Iterable[TensorName]:
    yield from _mapping_names(config, "mapping.fc{0}")
    constant = (config.channels[0], 4, 4)
    yield TensorName(
        ours="const", theirs="synthesis.b4.const", shape=constant, our_shape=(1, *constant)
    )
    for entry in config.style_table:
        layer = f"synthesis.b{entry.resolution}.{_NVIDIA_LAYERS[entry.kind]}"
        for part, shape in _entry_shapes(entry, config).items():
            theirs = "noise_const" if part == "noise" else part
            yield TensorName(
                ours=f"layers.{entry.index}.{part}",
                theirs=f"{layer}.{theirs}",
                shape=shape,
            )


def _belongs_to_generator(name: str, layout: Layout) -> bool:
    starts = {
        "rosinality": ("style.", "input.", "conv1.", "to_rgb1.", "convs.", "to_rgbs.", "noises."),
        "nvidia": ("mapping.", "synthesis."),
    }
    return name.startswith(starts[layout])


def _take_filters(tensors: dict[str, Tensor], layout: Layout, source: str) -> None:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    expected = torch.outer(taps, taps) / 64 * _FILTER_GAIN[layout]
    for name in [name for name in tensors if _FILTERS[layout].fullmatch(name)]:
        found = tensors.pop(name).float()
        if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-6):
            raise BundleError(
                "wrong-filter", f"{source}: expected the [1, 3, 3, 1] filter in {name}"
            )


def _config_of(tensors: Mapping[str, Tensor], layout: Layout, source: str) -> GeneratorConfig:
    """Read all sizes from tensor names and shapes."""
    rosinality = layout == "rosinality"
    mapping = re.compile(r"style\.(\d+)\.weight" if rosinality else r"mapping\.fc(\d+)\.weight")
    layers = {int(m[1]): name for name in tensors if (m := mapping.fullmatch(name))}
    if "mapping.embed.weight" in tensors:
        raise BundleError("conditional", f"{source}: conditional generators are not supported")
    first = tensors[layers[min(layers)]] if layers else None
    if first is None or first.ndim != 2:
        raise BundleError("missing-tensors", f"{source}: expected a mapping network, found none")
    channels = [tensors[_MARKS[layout]].numel() // 16]
    while True:
        level = len(channels)
        name = (
            f"convs.{2 * level - 1}.conv.weight"
            if rosinality
            else f"synthesis.b{4 << level}.conv1.weight"
        )
        if name not in tensors:
            break
        channels.append(tensors[name].shape[-3] if tensors[name].ndim >= 3 else 0)
    try:
        return GeneratorConfig(
            resolution=4 << (len(channels) - 1),
            channels=tuple(channels),
            style_dim=first.shape[0],
            latent_dim=first.shape[1],
            mapping_layers=len(layers),
        )
    except BundleError as error:
        raise BundleError(error.code, f"{source}: {error.message}") from error


def _mean_latent(
    mean: Tensor | None, state: Mapping[str, Tensor], config: GeneratorConfig, source: str
) -> Tensor:
    """Return the mean w `[D]`; training checkpoints lack it, then it is estimated."""
    if mean is None:
        mapping = MappingNetwork(config)
        prefix = "mapping."
        mapping.load_state_dict(
            {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        )
        random = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            z = torch.randn(_MEAN_LATENT_SAMPLES, config.latent_dim, generator=random)
            mean = mapping(z).mean(dim=0)
        return mean.clone()
    if mean.ndim == 2 and torch.equal(mean, mean[:1].expand_as(mean)):  # e4e: one copy per row
        mean = mean[0]
    if tuple(mean.shape) != (config.style_dim,):
        raise BundleError(
            "wrong-shape",
            f"{source}: expected a mean latent [{config.style_dim}], found {list(mean.shape)}",
        )
    return mean.float()


def read_state(
    tensors: Mapping[str, Tensor], network: Callable[[], nn.Module], *, source: str
) -> dict[str, Tensor]:
    """Return the state of a network whose names are the file's; raises BundleError."""
    with torch.device("meta"):
        return state_of(network(), tensors, source=source)


def state_of(
    network: nn.Module, tensors: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """Return the tensors of a network, float32, where all are there and nothing else is."""
    names = [
        TensorName(ours=name, theirs=name, shape=tuple(tensor.shape))
        for name, tensor in network.state_dict().items()
        if not name.endswith(COUNTER)
    ]
    counters = [name for name in tensors if name.endswith(COUNTER)]
    return take(tensors, names, source=source, ignored=counters)


def read_e4e(tensors: Mapping[str, Tensor], *, source: str) -> tuple[E4EConfig, dict[str, Tensor]]:
    """Return the config and state of `Encoder4Editing` in a complete e4e checkpoint.

    The checkpoint's generator is read by `read_generator`.
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
    return config, read_state(inside, lambda: Encoder4Editing(config), source=source)


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
        yield TensorName(ours=name, theirs=layer, shape=tuple(tensor.shape))


def read_styleflow(
    tensors: Mapping[str, Tensor], config: StyleFlowConfig, *, source: str
) -> dict[str, Tensor]:
    """Return the state of `StyleFlow`; raises BundleError."""
    ignored = ("chain.0.step", "chain.2.step", "chain.1.odefunc._num_evals")
    return take(tensors, styleflow_names(config), source=source, ignored=ignored)
