"""Finds 32 controls on any generator: StyleSpace channels that move one part of the face and
little else.

Each channel is moved by one standard deviation on a few sampled people. A channel belongs to the
part whose pixels it changes most, per pixel; it is ranked by how much more it changes that part
than the rest of the picture (locality), among the channels that change it visibly (sensitivity).

Sources: Wu et al. 2021 (StyleSpace), https://arxiv.org/abs/2011.12799, section 4; groups and
counts of the method's Table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.bitstream.channels import GROUP_SIZES
from sglat.bundles.bundle import EMBEDDED_FOLDER, Bundle, draw_identities
from sglat.bundles.controls import Controls
from sglat.bundles.manifest import write_part
from sglat.errors import BundleError
from sglat.networks.faces import PARSING_CLASSES

_MOUTH: Final = ("mouth", "upper_lip", "lower_lip")
_EYES: Final = ("left_eye", "right_eye")
_BROWS: Final = ("left_brow", "right_brow")


@dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """How controls are searched."""

    people: int = 4
    """Random identities on which each channel is measured."""
    style_samples: int = 512
    """Samples behind each channel's standard deviation."""
    push: float = 3.0
    """Standard deviations by which a channel is moved."""
    visible_share: float = 0.2
    """A candidate changes its part at least this share of what the strongest channel does."""
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """The controls found and why."""

    controls: Controls
    channels: tuple[tuple[int, int], ...]
    """(layer, channel) of each control."""
    locality: tuple[float, ...]
    """Mean change inside the control's part over mean change outside."""
    sensitivity: tuple[float, ...]
    """Mean change inside the part, pictures in [-1, 1], for a push of the config's size."""


@torch.inference_mode()
def discover(
    bundle: Bundle,
    config: DiscoverConfig | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Discovery:
    """Search a bundle's generator for single-channel controls."""
    config = config or DiscoverConfig()
    generator = bundle.generator
    ws = draw_identities(bundle, config.style_samples, seed=config.seed)
    sigma = [style.std(0) for style in generator.styles(ws)]
    change = _changes(bundle, ws[: config.people], sigma, config, progress)
    return _choose(change, sigma, generator.config.style_widths, config)


def store_controls(bundle: Bundle, controls: Controls) -> None:
    """Write controls into a bundle's folder; its decoder id changes."""
    if bundle.folder.resolve() == EMBEDDED_FOLDER.resolve():
        raise BundleError(
            "embedded-bundle", "the embedded bundle keeps its controls; import a copy"
        )
    tensors, config, hints = controls.to_part()
    part = bundle.part("generator")
    write_part(
        bundle.folder, name=bundle.name, role="controls", kind="controls", tensors=tensors,
        config=config, hints=hints, licence=part.licence, source="found by sgl-bundles discover",
    )  # fmt: skip


def part_masks(classes: Tensor) -> dict[str, Tensor]:
    """Return the pixels of each group of controls from class probabilities `[N, 19, H, W]`: `[N, 1,
    H, W]` of 0 and 1 by group name. The chin is the skin below the mouth; gaze is the inside of the
    eyes, `eyes` also their surroundings."""
    side = classes.shape[-1]
    reach = 2 * max(1, side // 64) + 1

    def of(names: tuple[str, ...]) -> Tensor:
        index = [PARSING_CLASSES.index(name) for name in names]
        return (classes[:, index].sum(1, keepdim=True) > 0.5).float()

    def grown(mask: Tensor) -> Tensor:
        return F.max_pool2d(mask, reach, 1, reach // 2)

    mouth, eyes = grown(of(_MOUTH)), of(_EYES)
    below = mouth.amax(3, keepdim=True).cumsum(2).clamp(max=1)  # from the upper lip downwards
    chin = of(("skin",)) * below * (1 - mouth)
    return {"mouth": mouth, "chin": chin, "eyes": grown(eyes), "brows": grown(of(_BROWS)),
            "gaze": eyes}  # fmt: skip


def _changes(
    bundle: Bundle,
    ws: Tensor,
    sigma: list[Tensor],
    config: DiscoverConfig,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """Return mean change in each part and in the rest, `[channels, groups, 2]`."""
    generator = bundle.generator
    table = generator.config.style_table
    total = sum(len(s) for s in sigma)
    result = torch.zeros(total, len(GROUP_SIZES), 2)
    for person in range(len(ws)):
        base = generator.styles(ws[person : person + 1])
        picture = generator.synthesize(base)
        masks = part_masks(bundle.faces.parse(picture.clamp(-1, 1)))
        start = 0
        for layer, entry in enumerate(table):
            width = entry.channels
            if entry.kind != "torgb":  # colours belong to the identity
                for first in range(0, width, config.batch):
                    chosen = torch.arange(first, min(first + config.batch, width))
                    styles = [s.expand(len(chosen), -1) for s in base]
                    moved = styles[layer].clone()
                    moved[torch.arange(len(chosen)), chosen] += config.push * sigma[layer][chosen]
                    styles[layer] = moved
                    difference = (generator.synthesize(styles) - picture).abs().mean(1, True)
                    result[start + chosen] += _by_part(difference, masks) / len(ws)
            start += width
            if progress is not None:
                progress(person * len(table) + layer + 1, len(ws) * len(table))
    return result


def _by_part(difference: Tensor, masks: dict[str, Tensor]) -> Tensor:
    """Return mean change inside and outside each part, `[N, groups, 2]`."""
    rows = []
    for group in GROUP_SIZES:
        mask = masks[group]
        inside = (difference * mask).sum((1, 2, 3)) / mask.sum().clamp_min(1)
        outside = (difference * (1 - mask)).sum((1, 2, 3)) / (1 - mask).sum().clamp_min(1)
        rows.append(torch.stack([inside, outside], 1))
    return torch.stack(rows, 1).cpu()


def _choose(
    change: Tensor, sigma: list[Tensor], widths: tuple[int, ...], config: DiscoverConfig
) -> Discovery:
    inside, outside = change[..., 0], change[..., 1]
    locality = inside / outside.clamp_min(1e-8)
    places = [(layer, c) for layer, width in enumerate(widths) for c in range(width)]
    scale = torch.cat([s.cpu() for s in sigma])
    taken = torch.zeros(len(places), dtype=torch.bool)
    picked: list[tuple[int, int]] = []  # position, group
    for number, (group, count) in enumerate(GROUP_SIZES.items()):
        visible = inside[:, number] >= config.visible_share * inside[:, number].max()
        usable = visible & ~taken & (inside[:, number] > 0)
        order = torch.where(usable, locality[:, number], -1.0).argsort(descending=True)[:count]
        if int(usable.sum()) < count:
            raise BundleError(
                "too-few-channels",
                f"expected {count} channels for {group}, found {int(usable.sum())}",
            )
        taken[order] = True
        picked += [(int(position), number) for position in order]
    channels = tuple(places[position] for position, _ in picked)
    controls = Controls.from_channels(
        channels, widths, sigma=[max(float(scale[position]), 1e-6) for position, _ in picked]
    )
    return Discovery(
        controls=controls,
        channels=channels,
        locality=tuple(float(locality[p, g]) for p, g in picked),
        sensitivity=tuple(float(inside[p, g]) for p, g in picked),
    )
