"""Write trained weights into the embedded bundle, in half precision.

python -m sglat_lab.train.export model --checkpoint FILE --packs DIR --cache DIR --out BUNDLE
python -m sglat_lab.train.export faces --weights DIR --bundle BUNDLE
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sglat.bundles.controls import NUM_CONTROLS, Controls
from sglat.bundles.manifest import PartRecord, fill_network, write_part
from sglat.files import write_atomically
from sglat.networks.embedded_analysis import KINDS, ROLES
from sglat.networks.motion_estimator import GROUP_INPUTS
from sglat_lab.train.data import FaceSampler, prepare
from sglat_lab.train.mini_model import MiniModel

LICENCE: Final = "research only: trained on pictures for research and non-commercial use"
SOURCE: Final = "trained by the sglat authors, see MODEL_CARD.md"
FACES_LICENCE: Final = (
    "research only: trained on pictures that are for research or non-commercial use"
)
FACES_SOURCES: Final = {
    "detector": "trained from scratch by sglat_lab.train.face detector",
    "landmarks": "trained from scratch by sglat_lab.train.face landmarks on MediaPipe labels",
    "parsing": "trained from scratch by sglat_lab.train.face parsing",
    "identity": "trained by sglat_lab.train.face identity to agree with MobileFaceNet",
    "perceptual": "trained by sglat_lab.train.face perceptual to agree with LPIPS-squeeze",
}


Turn = tuple[int, int, float]
"""Two controls of one group, counted from 0, and an angle in degrees."""


def export(
    model: MiniModel,
    folder: Path,
    sample: tuple[Tensor, Tensor, Tensor],
    *,
    turns: Sequence[Turn] = (),
    name: str = "mini",
) -> None:
    """Write generator, inverter, pose flow, controls and motion estimator.

    Args:
        model: its controls are scaled to unit deviation in place.
        folder: bundle folder; its manifest is created or updated.
        sample: landmarks, blendshapes and pose of training frames.
        turns: controls to rotate into each other.
        name: bundle name.
    """
    rescale_controls(model, control_sigma(model, sample))
    for turn in turns:
        turn_controls(model, *turn)
        rescale_controls(model, control_sigma(model, sample))
    folder.mkdir(parents=True, exist_ok=True)
    parts: tuple[tuple[str, str, torch.nn.Module, dict[str, Any]], ...] = (
        ("generator", "stylegan2", model.generator, model.generator.config.to_json()),
        ("inverter", "embedded_inverter", model.inverter, asdict(model.inverter.config)),
        ("pose_flow", "embedded_pose_flow", model.pose_flow, asdict(model.pose_flow.config)),
        ("estimator", "motion_estimator", model.estimator, {}),
    )
    for role, kind, module, config in parts:
        write_part(
            folder, name=name, role=role, kind=kind, tensors=halved(module.state_dict()),
            config=config, licence=LICENCE, source=SOURCE,
        )  # fmt: skip
    tensors, config, hints = _controls(model).to_part()
    write_part(
        folder, name=name, role="controls", kind="controls", tensors=tensors, config=config,
        hints=hints, licence=LICENCE, source=SOURCE,
    )  # fmt: skip


@torch.no_grad()
def rescale_controls(model: MiniModel, sigma: Tensor) -> None:
    """Scale each control to unit standard deviation without changing any picture."""
    model.directions.mul_(sigma[:, None])
    start = 0
    for group, linear, output in zip(
        GROUP_INPUTS, model.estimator.linear, model.estimator.output, strict=True
    ):
        for layer in (linear, output):
            assert isinstance(layer, nn.Linear)
            layer.weight.mul_(1 / sigma[start : start + group.controls, None])
        start += group.controls


@torch.no_grad()
def turn_controls(model: MiniModel, first: int, second: int, degrees: float) -> None:
    """Rotate two controls of one group into each other without changing any picture.

    A strong control shares its range with a weak one; their common span stays the same.

    Raises:
        ValueError: the controls belong to two groups.
    """
    ends = list(itertools.accumulate(group.controls for group in GROUP_INPUTS))
    group = next(index for index, end in enumerate(ends) if first < end)
    start = ends[group] - GROUP_INPUTS[group].controls
    if first == second or not start <= second < ends[group]:
        raise ValueError(f"expected two controls of one group, found {first} and {second}")
    angle = math.radians(degrees)
    pairs: list[tuple[Tensor, int, int]] = [(model.directions, first, second)]
    for layers in (model.estimator.linear, model.estimator.output):
        pairs.append((cast(nn.Linear, layers[group]).weight, first - start, second - start))
    for rows, a, b in pairs:
        one, other = rows[a].clone(), rows[b].clone()
        rows[a] = one * math.cos(angle) + other * math.sin(angle)
        rows[b] = other * math.cos(angle) - one * math.sin(angle)


def _controls(model: MiniModel) -> Controls:
    table = model.generator.config.style_table
    directions = iter(model.directions.detach().cpu().float().split(model.conv_sizes, dim=1))
    layers = [  # colours stay untouched
        torch.zeros(NUM_CONTROLS, entry.channels) if entry.kind == "torgb" else next(directions)
        for entry in table
    ]
    return Controls(torch.cat(layers, 1), style_widths=model.generator.config.style_widths)


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by name in half precision, those of integers as they are."""
    return {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in state.items()
    }


@torch.no_grad()
def control_sigma(model: MiniModel, sample: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the standard deviation of the estimated controls over labelled frames, `[32]`."""
    values: Tensor = model.estimator(*sample)
    return values.std(0).clamp_min(1e-3)


def enter(weights: Path, bundle: Path, *, name: str, role: str) -> PartRecord:
    """Check one network's exported weights and write them into a bundle's folder."""
    tensors = load_file(weights / f"faces_{role}.safetensors")
    fill_network(KINDS[role](), tensors, place=f"faces_{role}")
    return write_part(
        bundle, name=name, role=f"faces_{role}", kind=f"embedded_{role}", tensors=tensors,
        licence=FACES_LICENCE, source=FACES_SOURCES[role],
    )  # fmt: skip


def export_checkpoint(args: argparse.Namespace) -> None:
    """Export the averaged model of a checkpoint."""
    turns = [(int(first), int(second), float(degrees)) for first, second, degrees in args.turn]
    faces = prepare(args.packs, args.cache, 128)
    sampler = FaceSampler(faces, args.packs, device=torch.device("cpu"), seed=0)
    stored = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    model = MiniModel.of_size(stored["config"].get("size", 128))
    model.load_state_dict(stored["average"])
    export(model, args.out, sampler.label_sample(), turns=turns)


def write_compact(stored: Mapping[str, Any], path: Path) -> None:
    """Write averaged weights and codes of a checkpoint in half precision, as safetensors.

    Args:
        stored: `average` (a `MiniModel`'s state), `codes` (`[L, D]` each), `step` and `config`.
        path: file to write; replaced if it exists.
    """
    tensors = {f"average.{name}": value for name, value in halved(stored["average"]).items()}
    tensors["codes"] = torch.stack(list(stored["codes"])).half().contiguous()
    notes = {"step": str(stored["step"]), "config": json.dumps(stored["config"])}
    write_atomically(path, save(tensors, notes))


def read_compact(path: Path) -> dict[str, Any]:
    """Return what `write_compact` wrote, weights and codes in single precision.

    Raises:
        SystemExit: not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        codes = tensors.pop("codes").float()
        average = {
            name.removeprefix("average."): value.float() if value.is_floating_point() else value
            for name, value in tensors.items()
        }
        return {
            "average": average, "codes": list(codes), "step": int(notes["step"]),
            "config": json.loads(notes["config"]),
        }  # fmt: skip
    except (KeyError, OSError, SafetensorError, ValueError) as error:
        raise SystemExit(f"cannot read {path} as a compact checkpoint: {error}") from error


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    mini, faces = commands.add_parser("model"), commands.add_parser("faces")
    for name in ("checkpoint", "packs", "cache", "out"):
        mini.add_argument(f"--{name}", type=Path, required=True)
    mini.add_argument(
        "--turn", nargs=3, action="append", default=[], metavar=("CONTROL", "CONTROL", "DEGREES"),
        help="rotate two controls of one group, counted from 0, into each other",
    )  # fmt: skip
    faces.add_argument("--weights", type=Path, required=True, help="of faces_<role>.safetensors")
    faces.add_argument("--bundle", type=Path, required=True)
    faces.add_argument("--name", default="mini")
    faces.add_argument("--roles", default=",".join(ROLES), help="comma-separated")
    args = parser.parse_args()
    if args.command == "model":
        export_checkpoint(args)
        return
    for role in args.roles.split(","):
        record = enter(args.weights, args.bundle, name=args.name, role=role)
        print(f"{record.role} {record.size_bytes} bytes, sha256 {record.sha256}")


if __name__ == "__main__":
    main()
