"""The shape of a StyleGAN2 generator: widths, W+ rows and StyleSpace table, all from one config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

from sglat.errors import BundleError, UsageError

Kind = Literal["conv", "conv_up", "torgb"]
UpFilter = Literal["transposed", "low-resolution"]
MAX_RESOLUTION = 4096  # larger than any published; bounds memory for a damaged config
MAX_CHANNELS = 4096


@dataclass(frozen=True, kw_only=True)
class StyleEntry:
    """One layer that takes a style vector."""

    index: int
    """Position in StyleSpace, ToRGB layers counted, as in `6:113`."""
    resolution: int
    """Side of the layer's output in pixels."""
    kind: Kind
    """`conv_up` doubles the resolution."""
    channels: int
    """Length of the style vector: the layer's input channels."""
    outputs: int
    """The layer's output channels; 3 for ToRGB."""
    ws_index: int
    """Row of W+ that feeds it; ToRGB shares its row with the first layer of the next resolution."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Everything that decides a generator's shape."""

    resolution: int
    """Side of the picture in pixels, a power of two from 8 on."""
    channels: tuple[int, ...]
    """Feature channels at 4, 8, 16, ... `resolution` pixels."""
    style_dim: int = 512
    """Width D of one W+ row."""
    latent_dim: int = 512
    """Width of z."""
    mapping_layers: int = 8
    """0: the generator has no mapping network and is driven from W+ only."""
    mapping_learning_rate: float = 0.01
    """Learning-rate multiplier by which the mapping layers' stored weights are divided."""
    up_filter: UpFilter = "transposed"
    """`transposed`: StyleGAN2's transposed convolution and blur. `low-resolution`: convolve, then
    upsample bilinearly: a quarter of the multiplications, weights not interchangeable."""
    noise: bool = True
    """Constant noise pictures are part of the weights."""

    def __post_init__(self) -> None:
        size = self.resolution
        if not 8 <= size <= MAX_RESOLUTION or size & (size - 1):
            raise BundleError("bad-config", f"expected a power of two from 8 on, got {size} px")
        if len(self.channels) != len(self.resolutions):
            raise BundleError(
                "bad-config",
                f"expected {len(self.resolutions)} channel counts for {size} px, "
                f"got {len(self.channels)}",
            )
        widths = (*self.channels, self.style_dim, self.latent_dim)
        if not all(1 <= width <= MAX_CHANNELS for width in widths):
            raise BundleError("bad-config", f"expected widths of 1 to {MAX_CHANNELS}, got {widths}")
        if not 0 <= self.mapping_layers <= 64:
            raise BundleError(
                "bad-config", f"expected 0..64 mapping layers, got {self.mapping_layers}"
            )
        if self.up_filter not in ("transposed", "low-resolution"):
            raise BundleError("bad-config", f"unknown up_filter {self.up_filter!r}")

    @classmethod
    def config_f(cls, resolution: int = 1024) -> GeneratorConfig:
        """Return the paper's config f: 512 channels to 64 px, then `32768 / size`."""
        channels = tuple(min(512, 32768 // size) for size in _resolutions(resolution))
        return cls(resolution=resolution, channels=channels)

    @classmethod
    def mini(cls, resolution: int = 128) -> GeneratorConfig:
        """Return the embedded generator: 12 rows of 256 at 128 px, no mapping, no noise."""
        widths = (256, 256, 256, 192, 96, 48, 32, 16)
        return cls(
            resolution=resolution,
            channels=widths[: len(_resolutions(resolution))],
            style_dim=256,
            latent_dim=256,
            mapping_layers=0,
            up_filter="low-resolution",
            noise=False,
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GeneratorConfig:
        """Read what `to_json` wrote; unknown or missing names are an error."""
        known = set(cls.__dataclass_fields__)
        required = {"resolution", "channels"}
        if not required <= set(record) <= known:
            raise BundleError(
                "bad-config", f"expected names {sorted(known)}, got {sorted(map(str, record))}"
            )
        channels = record["channels"]
        numbers = [record.get(name, 1) for name in ("resolution", "style_dim", "latent_dim")]
        numbers.append(record.get("mapping_layers", 0))
        if not isinstance(channels, list | tuple) or not all(
            type(number) is int for number in (*channels, *numbers)
        ):
            raise BundleError("bad-config", "expected integers for sizes and widths")
        return cls(**{**record, "channels": tuple(channels)})

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a bundle's config file."""
        return {**asdict(self), "channels": list(self.channels)}

    def up_to(self, resolution: int) -> GeneratorConfig:
        """Return the config of this generator without the layers above a resolution."""
        kept = len(self.entries_up_to(resolution)) // 3 + 1
        return replace(self, resolution=resolution, channels=self.channels[:kept])

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... up to the picture's side."""
        return _resolutions(self.resolution)

    @property
    def num_ws(self) -> int:
        """Rows of W+."""
        return 2 * len(self.resolutions)

    @cached_property
    def style_table(self) -> tuple[StyleEntry, ...]:
        """All layers in StyleSpace order: conv, ToRGB at 4 px, then conv_up, conv, ToRGB each."""
        table: list[StyleEntry] = []

        def add(resolution: int, kind: str, channels: int, outputs: int, ws_index: int) -> None:
            entry = StyleEntry(
                index=len(table),
                resolution=resolution,
                kind=cast(Kind, kind),
                channels=channels,
                outputs=outputs,
                ws_index=ws_index,
            )
            table.append(entry)

        before = self.channels[0]
        for level, (size, width) in enumerate(zip(self.resolutions, self.channels, strict=True)):
            if level > 0:
                add(size, "conv_up", before, width, 2 * level - 1)
            add(size, "conv", width, width, 2 * level)
            add(size, "torgb", width, 3, 2 * level + 1)
            before = width
        return tuple(table)

    @property
    def style_widths(self) -> tuple[int, ...]:
        """Length of each StyleSpace vector."""
        return tuple(entry.channels for entry in self.style_table)

    @property
    def style_size(self) -> int:
        """Number of StyleSpace channels over all layers, ToRGB included."""
        return sum(self.style_widths)

    def entries_up_to(self, resolution: int | None) -> tuple[StyleEntry, ...]:
        """Return the table up to and including a resolution; the whole table if None."""
        if resolution is None:
            return self.style_table
        if resolution not in self.resolutions:
            raise UsageError(
                "bad-resolution", f"expected one of {self.resolutions}, got {resolution}"
            )
        return tuple(entry for entry in self.style_table if entry.resolution <= resolution)

    def check_styles(self, widths: Sequence[int]) -> None:
        """Raise UsageError unless these are the lengths of the style vectors up to some ToRGB."""
        expected = self.style_widths[: len(widths)]
        if tuple(widths) != expected or not widths:
            raise UsageError(
                "bad-shape", f"expected styles of widths {self.style_widths}, got {tuple(widths)}"
            )
        if self.style_table[len(widths) - 1].kind != "torgb":
            raise UsageError("bad-shape", f"{len(widths)} styles do not end at a ToRGB layer")


def _resolutions(resolution: int) -> tuple[int, ...]:
    sizes = []
    size = 4
    while size <= resolution:
        sizes.append(size)
        size *= 2
    return tuple(sizes)
