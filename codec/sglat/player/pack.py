"""The weights of a bundle as one array of bytes for the player, which `weights.js` reads.

Filters have 8 bits a number and a scale for each output channel: pictures then keep more
than 50 dB against the bundle's own. All else keeps its 16 bits, so that styles stay exact. Layout,
little-endian:

    8 bytes   `SGLW`, a zero byte, version, two zero bytes
    u32       size of the index
    index     JSON: names, configs, controls, and each tensor's type, shape and place
    arrays    from the next multiple of 4 on; places count from there, each a multiple of 4
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from sglat.bitstream.channels import GROUPS
from sglat.bundles.bundle import Bundle
from sglat.bundles.manifest import UPPER_ROLE
from sglat.errors import BundleError

MAGIC: Final = b"SGLW\0\x01\0\0"
ALIGNMENT: Final = 4
LEVELS: Final = 127  # of 8 bits, symmetric
POSE_FLOW_KIND: Final = "embedded_pose_flow"
UNUSED: Final = "mapping."
"""Prefix of weights that no decoder needs: files hold latents of W+. Their shapes stay in the
index, since weight deltas may name them."""


def quantize_filters(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return 8-bit numbers in the shape of a weight, and one float32 scale for each output."""
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(dim=1) / LEVELS
    divisor = torch.where(scale > 0, scale, 1.0)[:, None]
    numbers = (rows / divisor).round().clamp(-LEVELS, LEVELS).to(torch.int8)
    return numbers.view_as(weight), scale


def dequantize_filters(numbers: Tensor, scale: Tensor) -> Tensor:
    """Return float32 weights as the player has them."""
    return (numbers.flatten(1).float() * scale[:, None]).view(numbers.shape)


def is_filter(name: str, tensor: Tensor) -> bool:
    """Tell whether a weight is stored with 8 bits: filters of 3x3 pixels, by far most numbers."""
    return name.endswith(".weight") and tensor.ndim == 4 and tensor.shape[-1] > 1


def pack_weights(bundle: Bundle, *, filter_bits: int = 8) -> bytes:
    """Return what the player needs of a bundle: generator, upper layers, pose flow and controls.

    Args:
        bundle: with a generator and pose flow of the embedded bundle's kind.
        filter_bits: 8, or 16 to keep filters as stored.

    Raises:
        BundleError: the player cannot compute its networks, or a part is missing.
    """
    whole = bundle.at(bundle.rungs[-1])
    config = whole.config
    _check_playable(bundle)
    out = _Arrays()
    unused = {}
    tensors = dict(bundle.tensors("generator"))
    if bundle.has(UPPER_ROLE):
        tensors |= bundle.tensors(UPPER_ROLE)
    for name, tensor in sorted(tensors.items()):
        if name.startswith(UNUSED):
            unused[name] = list(tensor.shape)
        elif filter_bits == 8 and is_filter(name, tensor):
            out.add_filters(name, tensor)
        else:
            out.add(name, tensor)
    for name, tensor in sorted(bundle.tensors("pose_flow").items()):
        out.add(f"pose_flow.{name}", tensor)
    controls = bundle.controls
    out.add("controls.matrix", controls.matrix.half())
    upper_id = bundle.manifest.upper_id
    index = {
        "name": bundle.name,
        "decoder_id": bundle.decoder_id.hex(),
        "upper_id": upper_id.hex() if upper_id else None,
        "base_resolution": bundle.rungs[0],
        "generator": {
            "resolution": config.resolution,
            "channels": list(config.channels),
            "style_dim": config.style_dim,
        },
        "pose_flow": bundle.part("pose_flow").config,
        "controls": {
            "names": list(controls.names),
            "groups": list(GROUPS),
            "style_widths": list(controls.style_widths),
            "sigma": list(controls.sigma),
        },
        "licence": bundle.part("generator").licence,
        "unused": unused,
        "tensors": out.index,
    }
    head = json.dumps(index, separators=(",", ":"), sort_keys=True).encode("ascii")
    head += b" " * (-(len(MAGIC) + 4 + len(head)) % ALIGNMENT)
    return MAGIC + struct.pack("<I", len(head)) + head + bytes(out.data)


def _check_playable(bundle: Bundle) -> None:
    config = bundle.at(bundle.rungs[-1]).config
    kind = bundle.part("pose_flow").kind
    if kind != POSE_FLOW_KIND or config.up_filter != "low-resolution" or config.noise:
        raise BundleError(
            "not-playable",
            f"bundle {bundle.name!r}: expected networks like those of `mini` for the web page, "
            f"found {kind}, filter {config.up_filter}, noise {config.noise}",
        )


class _Arrays:
    """Raw arrays one after the other, and where each lies."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.index: dict[str, dict[str, Any]] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Append a tensor of 16 bits, or of 32 where it is stored so."""
        if tensor.dtype not in (torch.float16, torch.float32):
            raise BundleError("not-playable", f"{name}: expected floats, found {tensor.dtype}")
        wide = tensor.dtype == torch.float32
        at = self._put(tensor.cpu().numpy().astype("<f4" if wide else "<f2"))
        self.index[name] = {"type": "f32" if wide else "f16", "shape": [*tensor.shape], "at": at}

    def add_filters(self, name: str, tensor: Tensor) -> None:
        """Append filters of 8 bits and their scales."""
        numbers, scale = quantize_filters(tensor.cpu())
        entry = {"type": "i8", "shape": [*tensor.shape], "at": self._put(numbers.numpy())}
        entry["scale_at"] = self._put(scale.numpy().astype("<f4"))
        self.index[name] = entry

    def _put(self, array: np.ndarray[Any, Any]) -> int:
        at = len(self.data)
        self.data += array.tobytes()
        self.data += bytes(-len(self.data) % ALIGNMENT)
        return at
