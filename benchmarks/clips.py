"""The codec on real clips: encodes, decodes, verifies and swaps every clip of a folder.

    python benchmarks/clips.py CLIPS OUT [--steps N] [--threads N] [CLIP ...]

Finished clips are kept, so an interrupted run continues. Writes OUT/clips.json, OUT/clips.md and,
for each clip, a contact sheet: source crops above, decoded below. Quality is what the self-check
measures with the bundle's own networks; the report of `sgl-bench` measures with others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sglat
from sglat.bitstream.summary import verify
from sglat.bundles.bundle import load_bundle
from sglat.decoder.decode import Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.encoder.encode import EncodeConfig
from sglat.media.audio import AudioReader
from sglat.media.pictures import encode_png

COLUMNS = 10
HEADINGS = (
    "clip", "frames", "identity B", "motion bits/frame", "motion kbit/s", "total kB",
    "encode s/frame", "decode fps", "PSNR dB", "distance (inverter)", "identity (inverter)",
    "verified", "sound",
)  # fmt: skip


def audio_bytes(path: Path) -> bytes:
    """Return all audio packets of a video, joined."""
    with AudioReader(path) as audio:
        return b"".join(packet.data for packet in audio)


def encode_clip(clip: Path, out: Path, steps: int | None, threads: int | None) -> dict[str, Any]:
    """Encode a clip unless that is done, and return its record."""
    record_path = out / f"{clip.stem}.json"
    if record_path.exists():
        return dict(json.loads(record_path.read_text()))
    config = EncodeConfig(
        tune_steps=steps, threads=threads, is_forced=True, keep_workfile=True,
        workfile=out / f"{clip.stem}.work",
    )  # fmt: skip
    target = out / f"{clip.stem}.sglat"
    record = sglat.encode(clip, target, config).to_json()
    record["path"] = target.name
    with target.open("rb") as file:
        record["verified"] = len(verify(file)) == 64  # raises where the hash does not match
    began = time.monotonic()
    decoded = out / f"{clip.stem}.mp4"
    with target.open("rb") as file:
        result = write_decoded(Decoder(file), OutputConfig(path=decoded, force=True))
    record["decode_frames_per_second"] = round(result.frames / (time.monotonic() - began), 1)
    record["audio_is_bit_exact"] = audio_bytes(decoded) == audio_bytes(clip)
    write_sheet(target, out / f"{clip.stem}.work", out / f"{clip.stem}.png")
    record_path.write_text(json.dumps(record, indent=1))
    return record


def write_sheet(path: Path, work: Path, sheet: Path) -> None:
    """Write source crops above decoded pictures."""
    import h5py

    with path.open("rb") as file:
        shown = [frame.picture for frame in Decoder(file).frames()]
    parts = []
    for part in sorted((work / "crops").glob("rows-*.h5")):
        with h5py.File(part) as stored:
            parts.append(stored["crops"][:])
    source = np.concatenate(parts)
    chosen = np.linspace(0, len(shown) - 1, COLUMNS).astype(int)
    rows = [np.concatenate([clip[i] for i in chosen], axis=1) for clip in (list(source), shown)]
    sheet.write_bytes(encode_png(np.ascontiguousarray(np.concatenate(rows, axis=0))))


def swap_all(names: list[str], out: Path) -> int:
    """Swap every two clips and decode the first pictures; return how many worked."""
    count = 0
    bundle = load_bundle()
    for driver in names:
        for puppet in names:
            if driver != puppet:
                target = out / f"{driver}_on_{puppet}.sglat"
                sglat.swap(
                    motion=out / f"{driver}.sglat", identity=out / f"{puppet}.sglat", out=target,
                    force=True,
                )  # fmt: skip
                next(sglat.decode(target, bundle=bundle))
                count += 1
    return count


def table(records: dict[str, dict[str, Any]]) -> str:
    """Return the figures of all clips in Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    for name, r in records.items():
        check = r["check"]
        cells = (
            name,
            r["frames"],
            r["bytes"]["identity"],
            r["bits_per_frame"],
            r["kbit_per_second_motion"],
            f"{r['bytes']['total'] / 1000:.1f}",
            f"{r['seconds_per_frame']:.2f}",
            r["decode_frames_per_second"],
            check["psnr_db"],
            f"{check['perceptual']} ({check['inverter_perceptual']})",
            f"{check['identity']} ({check['inverter_identity']})",
            "yes" if r["verified"] else "NO",
            "exact" if r["audio_is_bit_exact"] else "NO",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run over all clips."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", help="clips by name; default: all")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    records = {}
    for clip in sorted(args.clips.glob("*.mp4")):
        if not args.names or clip.stem in args.names:
            print(clip.stem, flush=True)
            records[clip.stem] = encode_clip(clip, args.out, args.steps, args.threads)
            print(table({clip.stem: records[clip.stem]}).splitlines()[-1], flush=True)
    swaps = swap_all(list(records), args.out)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    text = f"{table(records)}\n\n{swaps} swaps written and decoded. Commit {commit}.\n"
    (args.out / "clips.md").write_text(text)
    (args.out / "clips.json").write_text(json.dumps(records, indent=1))
    print(text)


if __name__ == "__main__":
    main()
