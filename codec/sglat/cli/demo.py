"""`python -m sglat.cli.demo FOLDER`: the whole codec on people who do not exist.

Two people are sampled from the embedded generator, the first acts out a script, the clip is
encoded, decoded, and put onto the second person.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from sglat import api
from sglat.bitstream.channels import GROUPS
from sglat.bundles.bundle import Bundle, draw_identities, load_bundle
from sglat.cli.common import StageBar, new_app, run, say
from sglat.decoder.decode import DecodeConfig
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.marks.marking import MarkChoice, Marker, Shown
from sglat.media.pictures import encode_png, generated_marks
from sglat.media.reader import VideoReader
from sglat.media.writer import VideoWriter
from sglat.networks.pixels import to_pixels
from sglat.version import __version__

app = new_app()

FRAMES: Final = 40
RATE: Final = Fraction(25)
BORDER: Final = 80  # pixels of mirrored surroundings about the generated crop
SEEDS: Final = (5, 84)
"""Of the first and the second person: two plainly different ones without streaks in their hair."""
SHEET_COLUMNS: Final = 6
SHEET_SIDE: Final = 256  # pixels of its pictures


def scripted_motion(frames: int) -> Tensor:
    """Return scripted motion, `[T, 34]`: head turns and nods, speech, blinks."""
    time = torch.arange(frames) / float(RATE)
    motion = torch.zeros(frames, 34)
    motion[:, 0] = 10 * torch.sin(2 * torch.pi * time / 2.0)
    motion[:, 1] = 4 * torch.sin(2 * torch.pi * time / 1.3)
    speech = torch.sin(2 * torch.pi * time * 2.1) * torch.sin(2 * torch.pi * time / 1.9)
    blink = torch.exp(-(((time % 1.1) - 0.5) / 0.06).square())
    for index, group in enumerate(GROUPS):
        phase = torch.sin(2 * torch.pi * time / (1.7 + 0.13 * index) + index)
        act = {"mouth": speech, "chin": speech, "eyes": blink, "brows": phase, "gaze": phase}
        strength = {"mouth": 0.8, "chin": 0.6, "eyes": 0.8, "brows": 0.6, "gaze": 0.8}[group]
        sign = 1.0 if index % 3 else -1.0
        motion[:, 2 + index] = sign * strength * act[group]
    return motion


@torch.inference_mode()
def render_clip(bundle: Bundle, person: Person, motion: Tensor) -> NDArray[np.uint8]:
    """Return full frames `[T, H, W, 3]`: the generated crop with its surroundings mirrored."""
    synthesizer = Synthesizer.of(bundle)
    parts = []
    for rows in motion.split(8):
        pictures = synthesizer.render(person, rows)
        parts.append(to_pixels(pictures))
    crops = np.concatenate(parts)
    pad = ((0, 0), (BORDER, BORDER), (BORDER, BORDER), (0, 0))
    return np.pad(crops, pad, mode="reflect")


def write_clip(path: Path, frames: NDArray[np.uint8], marker: Marker | None = None) -> None:
    """Write generated frames at 25 a second, tagged, and with a marker watermarked."""
    size = (frames.shape[2], frames.shape[1])
    tags = marker.tags() if marker else generated_marks(generated_by=f"sglat {__version__}")
    with VideoWriter(path, size=size, time_base=1 / RATE, metadata=tags, force=True) as writer:
        for index, frame in enumerate(frames):
            shown = marker.mark(frame, float(index / RATE)) if marker else frame
            writer.write(shown, index, duration=1)


def marker_of(path: Path) -> Marker:
    """Return what marks pictures that were decoded from a file."""
    with api.open(path) as reader:
        shown = Shown(
            identity_sha256=reader.identity_sha256 or b"",
            decoder_id=reader.header.decoder_id,
            generated_by=f"sglat {__version__}",
            provenance=reader.provenance,
        )
    return Marker(shown, MarkChoice())


def decoded_frames(path: Path, bundle: Bundle, side: int) -> NDArray[np.uint8]:
    """Return the aligned pictures of a file, `[T, side, side, 3]`."""
    frames = api.decode(path, bundle=bundle, config=DecodeConfig(size=side))
    return np.stack([frame.picture for frame in frames])


def source_frames(video: Path, path: Path, side: int) -> NDArray[np.uint8]:
    """Return a video's pictures, cropped by the placement of the file made from it."""
    from sglat.encoder.crops import crop_picture

    with api.open(path) as file:
        groups = list(file.groups())
    places = np.concatenate([g.placement.dequantize() for g in groups if g.placement is not None])
    with VideoReader(video) as reader:
        return np.stack(
            [
                crop_picture(frame.picture, place, side)
                for frame, place in zip(reader, places, strict=True)
            ]
        )


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where everything is written.")],
    frames: Annotated[int, typer.Option(min=2, help="Length of the sample clip.")] = FRAMES,
    steps: Annotated[int, typer.Option(min=1, help="Tuning steps.")] = 60,
) -> None:
    """Make, encode, decode and swap a sample clip."""
    from sglat.encoder.config import EncodeConfig

    folder.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle()
    bundle = bundle.at(bundle.rungs[-1])
    motion = scripted_motion(frames)
    names = ("first", "second")
    for name, seed in zip(names, SEEDS, strict=True):
        say(f"sampling the {name} person and filming them")
        # of the second only the look is used: half the film shows it as well
        acted = motion if name == "first" else motion.flip(0)[: max(2, frames // 2)] * 0.7
        person = Person(ws=draw_identities(bundle, 1, seed=seed)[0], neutral=torch.zeros(34))
        write_clip(folder / f"{name}.mp4", render_clip(bundle, person, acted))
        bar = StageBar()
        result = api.encode(
            folder / f"{name}.mp4",
            folder / f"{name}.sglat",
            EncodeConfig(tune_steps=steps, force=True),
            progress=bar,
        )
        bar.close()
        _report(name, result.to_json())
    api.swap(
        motion=folder / "first.sglat", identity=folder / "second.sglat",
        out=folder / "swapped.sglat", force=True,
    )  # fmt: skip
    for name in ("first", "swapped"):
        video = folder / f"{name}_decoded.mp4"
        done = api.decode_video(folder / f"{name}.sglat", video, bundle=bundle, force=True)
        print(f"{name}: decoded {done.frames} frames at {done.frames_per_second:.0f} a second")
    show_side_by_side(folder, bundle)
    say(f"look at {folder / 'side_by_side.mp4'} and {folder / 'contact_sheet.png'}")


def _report(name: str, record: dict[str, object]) -> None:
    sizes = record["bytes"]
    assert isinstance(sizes, dict)
    print(
        f"{name}: {record['frames']} frames, {sizes['total']} bytes "
        f"(identity {sizes['identity']}, motion {sizes['motion']}), "
        f"{record['bits_per_frame']} bits a frame, "
        f"{record['kbit_per_second_motion']} kbit/s motion"
    )
    check = record["check"]
    if isinstance(check, dict):
        print(
            f"{name}: decoded against source {check['psnr_db']} dB, "
            f"perceptual distance {check['perceptual']}, identity {check['identity']}"
        )


def show_side_by_side(folder: Path, bundle: Bundle) -> None:
    """Write source, decoded and swapped next to each other, as video and as a contact sheet."""
    side = bundle.resolution
    source = source_frames(folder / "first.mp4", folder / "first.sglat", side)
    decoded = decoded_frames(folder / "first.sglat", bundle, side)
    swapped = decoded_frames(folder / "swapped.sglat", bundle, side)
    marker = marker_of(folder / "swapped.sglat")
    shown = np.concatenate([source, decoded, swapped], axis=2)
    write_clip(folder / "side_by_side.mp4", shown, marker)
    chosen = np.linspace(0, len(source) - 1, SHEET_COLUMNS).astype(int)
    sheet = np.concatenate(
        [
            np.concatenate([cv2.resize(clip[at], (SHEET_SIDE, SHEET_SIDE), None, 0, 0,
                                       cv2.INTER_AREA) for at in chosen], axis=1)
            for clip in (source, decoded, swapped)
        ]
    )  # fmt: skip
    marked = encode_png(marker.mark(sheet, 0.0), marks=marker.tags())
    (folder / "contact_sheet.png").write_bytes(marked)


def main() -> None:
    """Run the demo from the command line."""
    run(app)


if __name__ == "__main__":
    main()
