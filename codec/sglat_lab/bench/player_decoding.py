"""The web page's decoder, without its pictures, against Python; and how its weights are packed.

python -m sglat_lab.bench.player_decoding OUT.json FILE.sglat ...

The page's modules run in Node: motion integers, tuned weights, styles, and the processor time of
each step. Then filters of 8 and 16 bits: bytes, and pictures against those of the bundle's weights.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sglat.player
from sglat.bitstream.reader import Reader
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.synthesizer import Person, Synthesizer, held_rungs
from sglat.errors import SglatError
from sglat.player.pack import dequantize_filters, is_filter, pack_weights, quantize_filters
from sglat_lab.report.pages import provenance, write_page

SCRIPT: Final = Path(__file__).with_suffix(".mjs")
FRAMES: Final = 3  # rendered of each file
PACKINGS: Final[dict[str, Callable[[str, Tensor], bool]]] = {
    "filters and affine layers": lambda name, weight: name.endswith(".weight") and weight.ndim > 1,
    "filters": is_filter,
    "none": lambda name, weight: False,
}
"""Weights of 8 bits; the player's is `filters`, as `pack_weights` does it."""


class Look:
    """A file as Python decodes it."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        with path.open("rb") as file:
            reader = Reader(file)
            values = reader.read_motion()
        if reader.identity is None:
            raise SglatError("no-identity", f"{path.name}: expected a file with its identity")
        self.name = path.stem
        self.motion_sha256 = hashlib.sha256(values.values.astype("<i4").tobytes()).hexdigest()
        self.motion = torch.from_numpy(values.dequantize())
        self.bundle = bundle.of_file(reader.header)
        self.rungs = held_rungs(self.bundle, reader.identity)
        self.deltas = reader.identity.weight_deltas()
        self.tuned = Synthesizer.of(self.bundle).tuned(self.deltas)
        self.person: Person = self.tuned.person(reader.identity)

    def pictures(self, uses_8_bits: Callable[[str, Tensor], bool]) -> dict[int, Tensor]:
        """Return a few frames at the lowest and the highest resolution, with weights rounded."""
        base = Synthesizer.of(self.bundle)
        generator = copy.deepcopy(base.generator)
        for name, weight in generator.named_parameters():
            if uses_8_bits(name, weight):
                weight.copy_(dequantize_filters(*quantize_filters(weight)))
        rounded = Synthesizer(generator, base.pose_flow, base.controls, decoder_id=base.id).tuned(
            self.deltas
        )
        frames = self.motion[:: max(1, len(self.motion) // FRAMES)][:FRAMES]
        return {
            rung: rounded.up_to(rung).render(self.person, frames).clamp(-1, 1)
            for rung in (self.rungs[0], self.rungs[-1])
        }


def compare(look: Look, facts: dict[str, Any], numbers: NDArray[np.float32]) -> dict[str, Any]:
    """Return differences and times of one file."""
    parts = iter(np.split(numbers, np.cumsum(facts["sizes"])[:-1]))
    expected = dict(look.tuned.generator.named_parameters())

    def difference(tensor: Tensor) -> float:
        return float(np.abs(next(parts) - tensor.numpy().ravel()).max())

    weights = max(difference(expected[name]) for name in facts["names"])
    shown = look.tuned.up_to(look.rungs[-1])
    rows = shown.styles(look.person, look.motion[facts["styled"]])
    styles = max(difference(row[frame]) for frame in range(len(rows[0])) for row in rows)
    is_same = facts["motion_sha256"] == look.motion_sha256 and not facts["damage"]
    times = ("open_milliseconds", "person_milliseconds", "styles_milliseconds")
    return {
        "frames": facts["frames"],
        "resolution": look.rungs[-1],
        "is_motion_identical": is_same,
        "weights_difference": weights,
        "styles_difference": styles,
        **{key: facts[key] for key in times},
    }


def run_player(bundle: Bundle, paths: Sequence[Path], looks: Sequence[Look]) -> dict[str, Any]:
    """Return what Node finds and takes, by file."""
    node = shutil.which("node")
    if node is None:
        raise SglatError("no-node", "expected Node on PATH (apt install nodejs), found none")
    with TemporaryDirectory() as name:
        folder = Path(name)
        packed = folder / "weights.bin"
        packed.write_bytes(pack_weights(bundle, filter_bits=16))
        player = Path(sglat.player.__path__[0])
        command = [node, str(SCRIPT), str(player), str(packed), name, *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = map(json.loads, done.stdout.splitlines())
        return {
            look.name: compare(look, facts, np.fromfile(folder / f"{number}.bin", "<f4"))
            for number, (look, facts) in enumerate(zip(looks, lines, strict=True))
        }


def measure_packings(bundle: Bundle, looks: Sequence[Look]) -> dict[str, Any]:
    """Return bytes and the least PSNR of each way to pack, by resolution."""
    exact = [look.pictures(PACKINGS["none"]) for look in looks]
    found = {}
    for name, uses_8_bits in PACKINGS.items():
        least: dict[str, float] = {}
        for look, expected in zip(looks, exact, strict=True):
            for rung, pictures in look.pictures(uses_8_bits).items() if name != "none" else ():
                error = (pictures - expected[rung]).square().mean(dim=(1, 2, 3)).max()
                side = "lowest" if rung == look.rungs[0] else "full"
                decibels = float(10 * torch.log10(4 / error))
                least[side] = min(least.get(side, decibels), decibels)
        found[name] = {"bytes": packed_bytes(bundle, uses_8_bits), "least_psnr": least}
    return found


def packed_bytes(bundle: Bundle, uses_8_bits: Callable[[str, Tensor], bool]) -> int:
    """Return the size of packed weights: 16 bits a number, less a byte for those of 8 bits."""
    size = len(pack_weights(bundle, filter_bits=16))
    generator = bundle.at(bundle.rungs[-1]).generator
    for name, weight in generator.named_parameters():
        if uses_8_bits(name, weight) and not name.startswith("mapping."):
            size -= weight.numel() - 4 * len(weight)  # a scale for each output
    return size


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="JSON file to write")
    parser.add_argument("files", type=Path, nargs="+", help=".sglat files of the embedded bundle")
    chosen = parser.parse_args(arguments)
    bundle = load_bundle()
    with torch.inference_mode():
        looks = [Look(path, bundle) for path in chosen.files]
        files = run_player(bundle, chosen.files, looks)
        packings = measure_packings(bundle, looks)
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    run = provenance("python -m sglat_lab.bench.player_decoding")
    run["remark"] = f"Node {node.stdout.strip()}, one thread"
    write_page(chosen.out, {"files": files, "packings": packings, "runs": [run]})


if __name__ == "__main__":
    main()
