"""How local edits by name are: change in the edited region against the rest of the picture.

    python -m sglat_lab.bench.edits FILE.sglat… --out FILE.json

Every control, yaw and pitch are moved by `sgl-edit`'s own code in each file, which is written and
read again; sampled frames are rendered before and after. Regions are those of the bundle's own
parsing network, of the unedited frame; that of the pose is all of the head.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.channels import CHANNEL_NAMES, GROUP_SIZES, SETS, find_channels
from sglat.bitstream.edit_file import edit_motion
from sglat.bitstream.edit_grammar import parse_edit
from sglat.bitstream.reader import Reader
from sglat.bundles.bundle import Bundle, bundle_for
from sglat.bundles.discover import part_masks
from sglat.decoder.synthesizer import Renderer, Synthesizer, held_rungs
from sglat.errors import FormatError
from sglat.networks.faces import PARSING_CLASSES
from sglat.networks.pixels import to_pixels
from sglat_lab.report.pages import number, provenance, write_page
from sglat_lab.report.plots import write_sheet

LOCAL_RATIO: Final = 3.0
JOINT: Final = {
    "mouth": ("mouth", "chin"), "chin": ("mouth", "chin"), "eyes": ("eyes", "brows"),
    "brows": ("eyes", "brows"), "gaze": ("eyes",), "pose": ("pose",),
}  # fmt: skip
"""Groups whose regions the paper's solver takes together (METHOD.md, losses of the paper's
solver); gaze, the inside of the eyes, with their surroundings."""
CONTROL_UNITS: Final = 2.0  # as the controls are judged where they are made
POSE_DEGREES: Final = 5.0
GAIN: Final = 1.5
AREAS: Final = ("inside", "outside", "joint_inside", "joint_outside")
FRAMES: Final = 6
MOST_PIXELS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A file, some of its frames, and where their regions lie."""

    data: bytes
    values: NDArray[np.int32]
    """Motion before, `[T, 34]`."""
    steps: NDArray[np.float32]
    rows: NDArray[np.int64]
    """Frames that are compared."""
    renderer: Renderer
    base: Tensor
    """`[N, 3, R, R]` in [-1, 1]."""
    masks: dict[str, Tensor]
    """`[N, 1, R, R]` of 0 and 1 by group, pose included."""

    def shown(self, values: NDArray[np.int32]) -> Tensor:
        """Return the sampled frames of motion `[T, 34]`."""
        with torch.inference_mode():
            return self.renderer.render(torch.from_numpy(values[self.rows] * self.steps))


def open_clip(path: Path, frames: int) -> Clip:
    """Read a file that carries its person and has motion.

    Raises:
        FormatError: `no-identity`.
    """
    data = path.read_bytes()
    reader = Reader(io.BytesIO(data))
    if reader.identity is None:
        raise FormatError("no-identity", f"{path.name}: expected a person, found a reference")
    bundle = bundle_for(reader.header)
    rungs = [rung for rung in held_rungs(bundle, reader.identity) if rung <= MOST_PIXELS]
    bundle = bundle.at(rungs[-1])
    identity, motion = reader.identity, reader.read_motion()
    whole = Synthesizer.of(bundle_for(reader.header)).tuned(identity.weight_deltas())
    renderer = Renderer(whole.up_to(bundle.resolution), whole.person(identity))
    count = min(frames, len(motion.values))
    rows = np.linspace(0, len(motion.values) - 1, count + 2)[1:-1].astype(np.int64)
    with torch.inference_mode():
        base = renderer.render(torch.from_numpy(motion.values[rows] * motion.steps))
        masks = regions(bundle, base)
    return Clip(
        data=data, values=motion.values, steps=motion.steps, rows=rows, renderer=renderer,
        base=base, masks=masks,
    )  # fmt: skip


def regions(bundle: Bundle, pictures: Tensor) -> dict[str, Tensor]:
    """Return where each group of channels lies, `[N, 1, R, R]` of 0 and 1."""
    classes = bundle.faces.parse(pictures)
    background = classes[:, PARSING_CLASSES.index("background")]
    return {**part_masks(classes), "pose": (background[:, None] < 0.5).float()}


def edited(clip: Clip, option: str, text: str) -> NDArray[np.int32]:
    """Return the motion of a file after one edit, `[T, 34]`."""
    out = io.BytesIO()
    edit_motion(io.BytesIO(clip.data), out, [parse_edit(option, text)])
    return Reader(io.BytesIO(out.getvalue())).read_motion().values


def local_change(clip: Clip, group: str, target: str, edits: Sequence[tuple[str, str]]) -> Any:
    """Return mean L1 inside and outside of a group's region over some edits of one target, and how
    many integers of other channels they changed."""
    channels = list(find_channels(target))
    others = [channel for channel in range(len(CHANNEL_NAMES)) if channel not in channels]
    touched, figures = 0, list[list[float]]()
    masks = [clip.masks[group], torch.stack([clip.masks[part] for part in JOINT[group]]).amax(0)]
    for option, text in edits:
        values = edited(clip, option, text)
        touched += int((values[:, others] != clip.values[:, others]).sum())
        change = (clip.shown(values) - clip.base).abs().mean(1, keepdim=True)
        areas = [area for mask in masks for area in (mask, 1 - mask)]
        figures.append([float((change * a).sum() / a.sum().clamp(min=1)) for a in areas])
    means = dict(zip(AREAS, np.mean(figures, axis=0).tolist(), strict=True))
    return {**means, "others_changed": touched}


def merged(name: str, group: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one edit over all files."""
    means = {key: float(np.mean([one[key] for one in found])) for key in AREAS}
    inside, outside = means["inside"], means["outside"]
    ratios = [one["inside"] / max(one["outside"], 1e-9) for one in found]
    return {
        "name": name, "group": group, "inside": inside, "outside": outside,
        "ratio": inside / max(outside, 1e-9), "least_ratio": min(ratios),
        "joint_ratio": means["joint_inside"] / max(means["joint_outside"], 1e-9),
        "is_local": inside >= LOCAL_RATIO * outside,
        "others_changed": sum(one["others_changed"] for one in found),
    }  # fmt: skip


def measure(clips: Sequence[Clip]) -> dict[str, Any]:
    """Return the figures of single channels and of groups."""
    rows, groups = [], []
    for group in ("pose", *GROUP_SIZES):
        for channel in SETS[group]:
            name = CHANNEL_NAMES[channel]
            size = POSE_DEGREES if group == "pose" else CONTROL_UNITS
            edits = [("set", f"{name}{sign}{size:g}") for sign in "+-"]
            found = [local_change(clip, group, name, edits) for clip in clips]
            rows.append(merged(name, group, found))
            print(f"{name:<10} {number(rows[-1]['ratio'], 1)}", flush=True)
        edits = [("gain", f"{group}={GAIN}")]
        found = [local_change(clip, group, group, edits) for clip in clips]
        groups.append(merged(group, group, found))
    controls = [row for row in rows if row["group"] != "pose"]
    return {
        "rows": rows,
        "groups": groups,
        "controls": len(controls),
        "local_controls": sum(row["is_local"] for row in controls),
        "local_jointly": sum(row["joint_ratio"] >= LOCAL_RATIO for row in controls),
        "local_groups": sum(row["is_local"] for row in groups if row["group"] != "pose"),
        "others_changed": sum(row["others_changed"] for row in (*rows, *groups)),
        "misses": [
            f"{row['name']} ({row['ratio']:.1f})" for row in controls if not row["is_local"]
        ],
    }


def sheet(path: Path, clips: Sequence[Clip]) -> None:
    """Write a picture: of each file a frame before, and after one edit of each group."""
    names = ["before", "yaw + 10", "mouth = 0", "chin + 3", "eyes + 3", "brows + 3", "gaze + 3"]
    texts = ["yaw+10", "mouth=neutral", "chin+3", "eyes+3", "brows+3", "gaze+3"]
    rows = []
    for clip in clips:
        tiles = [clip.base[:1]]
        tiles += [clip.shown(edited(clip, "set", text))[:1] for text in texts]
        small = torch.nn.functional.interpolate(torch.cat(tiles), size=(128, 128), mode="area")
        rows.append(to_pixels(small))
    write_sheet(path, rows, names)


def main() -> None:
    """Measure files and write the record, its page and a picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each file")
    parser.add_argument("--sheet", type=Path, help="PNG of a frame of each file and its edits")
    options = parser.parse_args()
    clips = [open_clip(path, options.frames) for path in options.files]
    if options.sheet is not None:
        sheet(options.sheet, clips)
    files = [
        {"name": path.stem, "frames": len(clip.rows), "pixels": int(clip.base.shape[-1])}
        for path, clip in zip(options.files, clips, strict=True)
    ]
    record = {
        "files": files, "control_units": CONTROL_UNITS, "pose_degrees": POSE_DEGREES,
        "gain": GAIN, "local_ratio": LOCAL_RATIO, **measure(clips),
        "runs": [provenance("python -m sglat_lab.bench.edits")],
    }  # fmt: skip
    write_page(options.out, record)


if __name__ == "__main__":
    main()
