"""What an encoding needs before it starts: device, memory, and its cost against `mini`'s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from sglat.bundles.bundle import EMBEDDED, Bundle
from sglat.encoder.config import EncodeConfig
from sglat.encoder.jacobians import MOST_MATRIX_BYTES
from sglat.encoder.solving_side import frames_at_once, solving_side, tangents_at_once
from sglat.encoder.tune import frames_with_gradient
from sglat.errors import UsageError
from sglat.networks.devices import choose_device
from sglat.networks.stylespace import GeneratorConfig

# In feature maps of all convolutions of a picture, float32. Measured on StyleGAN2 config-f of 1024
# px, where one set of maps is 0.54 GB: the peak of one picture was 0.65 GB, of one with gradients
# 2.7 GB, of each further tangent 0.85 GB.
_MAPS_OF_PICTURE: Final = 1.25
_MAPS_OF_GRADIENT: Final = 5.0
_MAPS_OF_TANGENT: Final = 1.6
_BASE_BYTES: Final = 700_000_000  # interpreter, torch and the face networks
_TUNING_FRAMES: Final = 48
_TARGET_BYTES: Final = 16  # of a tuning picture's pixel: target, weights, perceptual features
_VALUES: Final = 34
_RESIDUALS: Final = 14.0  # a compared pixel: colours at two scales, perceptual features


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an encoding needs."""

    device: torch.device
    why: str
    """How the device was chosen."""
    memory_bytes: int
    available_bytes: int | None
    """None: unknown."""
    cost: float
    """Time of a picture against one of `mini`, at its lowest resolution."""

    def cost_of(self, phase: str) -> float:
        """Return the factor by which a phase takes longer than with `mini`."""
        return 1.0 if phase in ("track", "align") else max(1.0, self.cost)

    def line(self) -> str:
        """Return one line for the user."""
        free = (
            "" if self.available_bytes is None else f" of {_gigabytes(self.available_bytes)} free"
        )
        memory = _gigabytes(self.memory_bytes)
        return f"device {self.device.type} ({self.why}), about {memory}{free}"


def needs_of(bundle: Bundle, config: EncodeConfig) -> Needs:
    """Return what an encoding needs, from the bundle's manifest alone; no weights are loaded.

    Raises:
        UsageError: an unknown device, or one that this machine does not have.
    """
    device = choose_device(config.device)
    why = "chosen" if config.device != "auto" else _reason(device)
    generator = bundle.config
    return Needs(
        device=device,
        why=why,
        memory_bytes=memory_bytes(bundle, config),
        available_bytes=available_bytes(device),
        cost=multiplications(generator) / multiplications(GeneratorConfig.mini()),
    )


def check_memory(needs: Needs, bundle: Bundle) -> None:
    """Refuse an encoding that would run out of memory.

    Raises:
        UsageError: less memory than it takes; with the remedy.
    """
    available = needs.available_bytes
    if available is None or needs.memory_bytes <= available:
        return
    other = (
        "--device cpu" if needs.device.type != "cpu" else "a machine with more, or --device cuda"
    )
    raise UsageError(
        "no-memory",
        f"encoding with bundle {bundle.name!r} at {bundle.resolution} px takes about "
        f"{_gigabytes(needs.memory_bytes)} of memory, {_gigabytes(available)} are free on "
        f"{needs.device.type}; close other programs, use {other}, fewer --tune-frames, "
        f"or --bundle {EMBEDDED}",
    )


def memory_bytes(bundle: Bundle, config: EncodeConfig) -> int:
    """Return the peak of an encoding: weights, and the largest of its stages."""
    generator = bundle.config
    side, maps = generator.resolution, 4 * feature_numbers(generator)
    frames = _TUNING_FRAMES if config.tune_frames is None else config.tune_frames
    kept = frames * side * side * 3 * _TARGET_BYTES
    tangents = tangents_at_once(side) or _VALUES
    residual = solving_side(side) ** 2 * _RESIDUALS
    stages = (
        frames_at_once(side, 8) * maps * _MAPS_OF_PICTURE,
        min(frames, frames_with_gradient(side)) * maps * _MAPS_OF_GRADIENT + kept,
        maps * (_MAPS_OF_PICTURE + tangents * _MAPS_OF_TANGENT)
        + min(MOST_MATRIX_BYTES, 12 * residual * _VALUES * 4),
    )
    weights = sum(part.size_bytes for part in bundle.manifest.parts.values())
    return int(_BASE_BYTES + weights + max(stages))


def feature_numbers(config: GeneratorConfig) -> int:
    """Return the numbers in all feature maps of one picture."""
    return sum(
        entry.outputs * entry.resolution**2 for entry in config.style_table if entry.kind != "torgb"
    )


def multiplications(config: GeneratorConfig) -> int:
    """Return the multiplications of one picture's convolutions; an upsampling one that convolves
    before it upsamples works on a quarter of the pixels."""
    total = 0
    for entry in config.style_table:
        side = 1 if entry.kind == "torgb" else 3
        is_small = entry.kind == "conv_up" and config.up_filter == "low-resolution"
        pixels = (entry.resolution // 2 if is_small else entry.resolution) ** 2
        total += side * side * entry.channels * entry.outputs * pixels
    return total


def available_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device, None where it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [value for value in (_free_of_machine(), _free_of_group()) if value is not None]
    return min(found, default=None)


def _free_of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    return 1024 * int(sizes["MemAvailable"]) if "MemAvailable" in sizes else None


def _free_of_group() -> int | None:
    """Return what the control group of this process has left, as inside a container."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        facts = (folder / "memory.stat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    if not most.isdigit():
        return None
    cached = int(facts[facts.index("inactive_file") + 1]) if "inactive_file" in facts else 0
    return int(most) - used + cached


def _reason(device: torch.device) -> str:
    return "no GPU found" if device.type == "cpu" else "found; --device cpu avoids it"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
