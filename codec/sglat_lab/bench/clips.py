"""The codec on real clips: encodes, decodes, verifies, measures and swaps every clip of a folder.

    python -m sglat_lab.bench.clips CLIPS OUT [--steps N] [--threads N] [CLIP ...]

Finished parts are kept in OUT, so an interrupted run continues. Writes OUT/clips.md and
OUT/clips.json with every figure beside its bar, a contact sheet for each clip (source, decoded, the
inverter's own reconstruction) and one of all swaps. Quality is measured by networks that no part of
the encoder uses; `--teachers` names their folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

import sglat
from sglat.bitstream.info import verify
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.decode import Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.encoder.encode import EncodeConfig
from sglat.media.audio import AudioReader
from sglat.media.reader import VideoReader
from sglat_lab.bench import file_variants, long_decode, resume
from sglat_lab.measure import motion_figures
from sglat_lab.measure.judges import Judges, find_teachers, load_judges
from sglat_lab.measure.picture_metrics import make_reference, means, measure_pictures
from sglat_lab.report import clips_tables, sheets

Record = dict[str, Any]
SMALL_IDENTITY_BYTES: Final = 8_000
SMALL_SECONDS: Final = 4.0
REFERENCE_FRAMES: Final = 250  # length at which the encoding time is wanted
FIXED_STAGES: Final = ("refine", "tune", "jacobian")
"""They take the same time however long the clip is."""


def kept(path: Path, make: Callable[[], Record]) -> Record:
    """Return a record from its file, or make and keep it."""
    if path.exists():
        return dict(json.loads(path.read_text()))
    record = make()
    path.write_text(json.dumps(record, indent=1))
    return record


def audio_bytes(path: Path) -> bytes:
    """Return all audio packets of a video, joined."""
    with AudioReader(path) as audio:
        return b"".join(packet.data for packet in audio)


def audio_lag_seconds(path: Path) -> float | None:
    """Return how much later the sound begins than the picture; None without sound."""
    with AudioReader(path) as audio:
        first = next(iter(audio), None)
        if audio.format is None or first is None:
            return None
        heard = first.pts * audio.format.time_base
    with VideoReader(path) as reader:
        return float(heard - next(iter(reader)).pts * reader.time_base)


def encode_config(args: argparse.Namespace, work: Path, identity_bytes: int) -> EncodeConfig:
    """Return the settings of one encoding."""
    return EncodeConfig(
        tune_steps=args.steps, threads=args.threads, device="cpu", force=True,
        keep_workfile=True, workfile=work, identity_bytes=identity_bytes,
    )  # fmt: skip


def encode_clip(clip: Path, args: argparse.Namespace) -> Record:
    """Encode, verify and decode a clip into a video, and return what that cost."""
    target = args.out / f"{clip.stem}.sglat"
    load = os.getloadavg()[0]
    config = encode_config(args, args.out / f"{clip.stem}.work", 64_000)
    record = sglat.encode(clip, target, config).to_json()
    stages: dict[str, float] = record["stage_seconds"]
    fixed = sum(stages.get(name, 0.0) for name in FIXED_STAGES)
    running = (sum(stages.values()) - fixed) / record["frames"]
    record |= {
        "path": target.name,
        "load_before_encoding": round(load, 1),
        "seconds_per_frame_250": round(fixed / REFERENCE_FRAMES + running, 3),
    }
    with target.open("rb") as file:
        record["verified"] = len(verify(file)) == 64  # raises where the hash does not match
    return record | decode_clip(clip, target, args.out / f"{clip.stem}.mp4")


def decode_clip(clip: Path, target: Path, decoded: Path) -> Record:
    """Decode a file with its sound, and compare the sound with the source's."""
    load, began = os.getloadavg()[0], time.monotonic()
    with target.open("rb") as file:
        decoder = Decoder(file)
        rate = float(decoder.frame_rate or 25)
        result = write_decoded(decoder, OutputConfig(path=decoded, force=True, crop_only=True))
    lags = audio_lag_seconds(clip), audio_lag_seconds(decoded)
    offset = None
    if lags[0] is not None and lags[1] is not None:
        offset = round(abs(lags[1] - lags[0]) * rate, 3)
    return {
        "decode_frames_per_second": round(result.frames / (time.monotonic() - began), 1),
        "load_before_decoding": round(load, 1),
        "audio_is_bit_exact": audio_bytes(decoded) == audio_bytes(clip),
        "av_offset_frames": offset,
    }


def measure_clip(clip: Path, args: argparse.Namespace, tools: Tools) -> Record:
    """Compare the decoded clip with its source, and write the contact sheet."""
    target = args.out / f"{clip.stem}.sglat"
    source = file_variants.source_crops(clip, file_variants.parse(target))
    shown, is_held = motion_figures.decode_all(target, tools.bundle)
    figures, signals = motion_figures.face_figures(
        source, shown, is_held, bundle=tools.bundle, judges=tools.judges, watcher=tools.watcher
    )
    frames = sheets.telling_frames(signals)
    rows = np.array([at for _, at in frames])
    again = np.zeros_like(source)
    again[rows] = motion_figures.inverted(source[rows], tools.bundle)
    sheets.write_sheet(args.out / f"{clip.stem}.png", (source, shown, again), frames)
    return figures | {"telling_frames": dict(frames)}


def measure_small(clip: Path, args: argparse.Namespace, tools: Tools) -> Record:
    """Encode the beginning with a small identity, and measure the pictures."""
    target = args.out / f"{clip.stem}_small.sglat"
    piece = file_variants.shortened(clip, args.out / f"{clip.stem}_small.mp4", SMALL_SECONDS)
    config = encode_config(args, args.out / f"{clip.stem}_small.work", SMALL_IDENTITY_BYTES)
    sizes = sglat.encode(piece, target, config).bytes_by_stream
    source = file_variants.source_crops(piece, file_variants.parse(target))
    shown, is_held = motion_figures.decode_all(target, tools.bundle)
    rows = motion_figures.spread_rows(is_held)
    reference = make_reference(source, rows, 0, tools.judges, tools.watcher.landmarker)
    figures = means(measure_pictures(shown[rows], reference, tools.judges))
    chosen = [(f"frame {at}", int(at)) for at in rows[:: max(1, len(rows) // 8)]]
    sheets.write_sheet(args.out / f"{clip.stem}_small.png", (source, shown), chosen)
    return figures | {"identity_bytes": sizes["identity"]}


class Tools:
    """The bundle and the measuring networks, loaded once."""

    def __init__(self, teachers: Path | None, heads: Path | None) -> None:
        self.bundle: Bundle = load_bundle()
        self.judges: Judges = load_judges(find_teachers(teachers), heads=heads)
        self.watcher = motion_figures.make_watcher(self.judges, self.bundle)


def swap_all(records: dict[str, Record], out: Path, bundle: Bundle) -> int:
    """Swap every two clips, decode the frame where the driver's mouth is widest, make a sheet."""
    with TemporaryDirectory() as scratch:
        return _swap_all(records, out, bundle, Path(scratch))


def _swap_all(records: dict[str, Record], out: Path, bundle: Bundle, scratch: Path) -> int:
    sources, swaps = {}, {}
    for driver, record in records.items():
        at = np.array([record["figures"]["telling_frames"]["mouth open"]], np.int64)
        own = out / f"{driver}.sglat"
        sources[driver] = file_variants.decoded_rows(own, bundle, at, scratch)[0]
        for puppet in records:
            if driver != puppet:
                target = out / f"{driver}_on_{puppet}.sglat"
                sglat.swap(motion=own, identity=out / f"{puppet}.sglat", out=target, force=True)
                with target.open("rb") as file:
                    verify(file)
                swaps[driver, puppet] = file_variants.decoded_rows(target, bundle, at, scratch)[0]
    sheets.write_swap_sheet(out / "swaps.png", sources, swaps)
    return len(swaps)


def circumstances(args: argparse.Namespace, tools: Tools) -> str:
    """Return machine, commit and measuring networks in one paragraph."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    perceptual = tools.judges.perceptual
    return (
        f"{os.cpu_count()} cores {platform.machine()}, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads, commit {commit}, decoder "
        f"{tools.bundle.decoder_id.hex()[:8]}, tuning steps {args.steps or 'default'}. "
        f"Perceptual: {perceptual.name if perceptual else 'not measured'}; identity: "
        f"{'MobileFaceNet' if tools.judges.identity else 'not measured'}; "
        f"landmarks: {tools.watcher.name}."
    )


def report(
    records: dict[str, Record], whole: Record, args: argparse.Namespace, tools: Tools
) -> str:
    """Return the whole page in Markdown."""
    missed = clips_tables.misses(records)
    lines = [
        circumstances(args, tools), "",
        clips_tables.table(records), "", clips_tables.spans(records), "",
        f"{whole['swaps']} swaps written, verified and decoded (swaps.png).", "",
    ]  # fmt: skip
    if "resume" in whole:
        lines += [f"Resume: {json.dumps(whole['resume'])}", ""]
    for found in whole.get("long", []):
        lines += [f"Long decode: {json.dumps(found)}", ""]
    lines += ["Missed:", "", *(f"* {line}" for line in missed or ["nothing"])]
    loads = [f"{n} {r['load_before_encoding']}/{r['load_before_decoding']}"
             for n, r in records.items()]  # fmt: skip
    return "\n".join([*lines, "", f"Load before encoding/decoding: {', '.join(loads)}.", ""])


def long_clip(records: dict[str, Record], args: argparse.Namespace) -> list[Record]:
    """Decode the longest clip looped to several lengths, each in a process of its own."""
    longest = max(records, key=lambda name: records[name]["frames"])
    found = []
    for minutes in args.minutes:
        path = args.out / "long.sglat"
        long_decode.loop(args.out / f"{longest}.sglat", path, 60 * minutes)
        figures = long_decode.measure(path, is_video=True, threads=args.threads or 2)
        found.append({"clip": longest, "minutes": minutes, **{k: round(v, 1) for k, v in
                                                              figures.items()}})  # fmt: skip
        path.unlink()
    return found


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="clips by name; default: all")
    parser.add_argument("--steps", type=int, help="tuning steps; default: the encoder's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--teachers", type=Path, help="folder of the measuring networks")
    parser.add_argument("--heads", type=Path, help="squeeze.pth of the lpips package")
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 10], help="long decodes")
    parser.add_argument("--skip-small", action="store_true", help="no encoding at 8 kB")
    parser.add_argument("--skip-resume", action="store_true", help="no kills")
    return parser.parse_args()


def main() -> None:
    """Run over all clips."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    tools = Tools(args.teachers, args.heads)
    records: dict[str, Record] = {}
    for clip in sorted(args.clips.glob("*.mp4")):
        if args.names and clip.stem not in args.names:
            continue
        print(clip.stem, flush=True)
        place = args.out / clip.stem
        record = kept(place.with_suffix(".json"), lambda c=clip: encode_clip(c, args))
        record["figures"] = kept(
            place.with_suffix(".figures.json"), lambda c=clip: measure_clip(c, args, tools)
        )
        if not args.skip_small:
            record["small"] = kept(
                place.with_suffix(".small.json"), lambda c=clip: measure_small(c, args, tools)
            )
        records[clip.stem] = record
    whole: Record = {"swaps": swap_all(records, args.out, tools.bundle)}
    if not args.skip_resume:
        shortest = min(records, key=lambda name: records[name]["frames"])
        piece = args.clips / f"{shortest}.mp4"
        whole["resume"] = kept(
            args.out / "resume.json",
            lambda: resume.check_resume(piece, args.out / "resume", threads=args.threads or 1),
        )
    if args.minutes:
        whole["long"] = kept(args.out / "long.json", lambda: {"runs": long_clip(records, args)})[
            "runs"
        ]
    text = report(records, whole, args, tools)
    (args.out / "clips.md").write_text(text)
    (args.out / "clips.json").write_text(json.dumps({"clips": records, **whole}, indent=1))
    print(text)
    if tools.watcher.landmarker is not None:
        tools.watcher.landmarker.close()


if __name__ == "__main__":
    main()
