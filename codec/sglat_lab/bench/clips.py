"""The codec on real clips: encodes, decodes, verifies, measures and swaps every clip of a folder.

    python -m sglat_lab.bench.clips CLIPS OUT [--steps N] [--threads N] [CLIP ...]

Finished parts are kept in OUT, so an interrupted run continues. Writes OUT/clips.json and
OUT/clips.md with every figure beside its target, a contact sheet for each clip (source, decoded,
the inverter's own reconstruction) and one of all swaps. `--teachers` names the folder of the
measuring networks.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import sglat
from sglat.bitstream.info import verify
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.encoder.config import EncodeConfig
from sglat.media.audio import AudioReader
from sglat.networks.pixels import from_pixels, to_pixels
from sglat_lab.bench import file_variants, long_decode
from sglat_lab.bench.harness import Cache, ToolConfig
from sglat_lab.bench.probes import Tools
from sglat_lab.measure.face_signals import correlations, jitter_pixels
from sglat_lab.measure.landmarks import Signals
from sglat_lab.measure.picture_metrics import Reference, make_reference, means, measure_pictures
from sglat_lab.report.pages import Record, provenance, targets, write_page
from sglat_lab.report.plots import contact_sheet, telling_frames, write_sheet

Pictures = NDArray[np.uint8]
IDENTITY_BYTES: Final = 64_000
SMALL_IDENTITY_BYTES: Final = 8_000
SMALL_SECONDS: Final = 4.0
PICTURE_ROWS: Final = 96  # frames, evenly spread, of the picture metrics
REFERENCE_FRAMES: Final = 250  # length at which the encoding time has its target
FIXED_STAGES: Final = ("refine", "tune", "jacobian")
"""They take the same time however long the clip is."""
RESUME_SECONDS: Final = 1.0
RESUME_STEPS: Final = 15
KILLS: Final = 5
LEAST_SECONDS: Final = 3.0  # before a kill; earlier nothing but imports has happened


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One source video and where its results go."""

    video: Path
    out: Path
    steps: int | None = None
    """Tuning steps; None: the encoder's default."""
    threads: int | None = None

    def path(self, suffix: str) -> Path:
        """Return the path of a result, `OUT/<clip><suffix>`."""
        return self.out / f"{self.video.stem}{suffix}"

    def config(self, suffix: str, identity_bytes: int) -> EncodeConfig:
        """Return the settings of one encoding with its work file."""
        return EncodeConfig(
            tune_steps=self.steps, threads=self.threads, device="cpu", force=True,
            keep_workfile=True, workfile=self.path(suffix), identity_bytes=identity_bytes,
        )  # fmt: skip


def encode_probe(clip: Clip, tools: Tools) -> Record:
    """Encode, verify and decode a clip into a video, and return the cost."""
    target = clip.path(".sglat")
    load = os.getloadavg()[0]
    record = sglat.encode(clip.video, target, clip.config(".work", IDENTITY_BYTES)).to_json()
    stages: dict[str, float] = record["stage_seconds"]
    fixed = sum(stages.get(name, 0.0) for name in FIXED_STAGES)
    running = (sum(stages.values()) - fixed) / record["frames"]
    record |= {
        "path": target.name,
        "load_before_encoding": round(load, 1),
        "seconds_per_frame_250": round(fixed / REFERENCE_FRAMES + running, 3),
        "motion_kbit_per_second": round(record["bits_per_frame"] * 25 / 1000, 3),
        "identity_kilobytes": record["bytes"]["identity"] / 1000,
    }
    with target.open("rb") as file:
        record["verified"] = len(verify(file)) == 64  # raises where the hash does not match
    return record | decode_clip(clip.video, target, clip.path(".mp4"), tools.bundle)


def decode_clip(video: Path, target: Path, decoded: Path, bundle: Bundle) -> Record:
    """Decode a file with its sound at the bundle's rung, and compare the sounds."""
    config = DecodeConfig(size=bundle.resolution)
    load, began = os.getloadavg()[0], time.monotonic()
    with target.open("rb") as file:
        decoder = Decoder(file, bundle=bundle, config=config)
        rate = float(decoder.frame_rate or 25)
        result = write_decoded(
            decoder, OutputConfig(path=decoded, force=True, crop_only=True, has_watermark=False)
        )
    spent = time.monotonic() - began
    source, ours = (file_variants.audio_lag_seconds(path) for path in (video, decoded))
    offset = None if source is None or ours is None else round(abs(ours - source) * rate, 3)
    return {
        "decode_frames_per_second": round(result.frames / spent, 1),
        "load_before_decoding": round(load, 1),
        "audio_is_bit_exact": audio_bytes(decoded) == audio_bytes(video),
        "av_offset_frames": offset,
    }


def audio_bytes(path: Path) -> bytes:
    """Return all audio packets of a video, joined."""
    with AudioReader(path) as audio:
        return b"".join(packet.data for packet in audio)


def figures_probe(clip: Clip, tools: Tools) -> Record:
    """Compare the decoded clip with its source, and write the contact sheet."""
    target = clip.path(".sglat")
    source = source_crops(clip, target, tools)
    shown, is_held = file_variants.decoded(target, tools.bundle)
    figures, signals = face_figures(source, shown, is_held, tools)
    frames = telling_frames(signals)
    rows = [at for _, at in frames]
    names = [name if name.startswith("frame") else f"{name} {at}" for name, at in frames]
    again = inverted(source[rows], tools)
    write_sheet(clip.path(".png"), [source[rows], shown[rows], again], names)
    return figures | {"telling_frames": dict(frames)}


def small_probe(clip: Clip, tools: Tools) -> Record:
    """Encode the beginning with a small identity, and measure the pictures."""
    target = clip.path("_small.sglat")
    config = clip.config("_small.work", SMALL_IDENTITY_BYTES)
    config = replace(config, end_seconds=SMALL_SECONDS)
    sizes = sglat.encode(clip.video, target, config).bytes_by_stream
    source = source_crops(clip, target, tools)
    shown, is_held = file_variants.decoded(target, tools.bundle)
    rows = spread_rows(is_held)
    figures = picture_figures(shown[rows], reference_at(source, rows, tools), tools)
    some = rows[:: max(1, len(rows) // 8)]
    names = [f"frame {at}" for at in some]
    write_sheet(clip.path("_small.png"), [source[some], shown[some]], names)
    return figures | {"identity_bytes": sizes["identity"]}


def source_crops(clip: Clip, target: Path, tools: Tools) -> Pictures:
    """Return the source's crops `[T, R, R, 3]` at the bundle's rung and the file's placement."""
    parsed = file_variants.parse(target)
    return file_variants.source_crops(clip.video, parsed, tools.bundle.resolution)


Probe = Callable[[Clip, Tools], Record]
PROBES: Final[dict[str, tuple[str, Probe]]] = {
    "encode": ("", encode_probe),
    "figures": (".figures", figures_probe),
    "small": (".small", small_probe),
}
"""Name of each probe to the suffix of its record in OUT, and the function."""


def spread_rows(is_held: NDArray[np.bool_], count: int = PICTURE_ROWS) -> NDArray[np.int64]:
    """Return evenly spread frames with a face."""
    usable = np.flatnonzero(~is_held)
    return np.asarray(usable[file_variants.spread(len(usable), count)], np.int64)


def reference_at(source: Pictures, rows: NDArray[np.int64], tools: Tools) -> Reference:
    """Return what pictures at some frames of a clip are compared with."""
    return make_reference(source, rows, 0, tools.judges, tools.any_landmarker)


def picture_figures(shown: Pictures, reference: Reference, tools: Tools) -> dict[str, float]:
    """Return the mean picture metrics, with the identity loss as a cosine too."""
    found = means(measure_pictures(shown, reference, tools.judges))
    if "identity_loss" in found:
        found["cosine"] = 1 - found["identity_loss"]
    return found


@torch.inference_mode()
def inverted(pictures: Pictures, tools: Tools) -> Pictures:
    """Return the inverter's own reconstruction of crops `[N, R, R, 3]`."""
    bundle = tools.bundle
    parts = [bundle.generator(bundle.inverter(part)) for part in from_pixels(pictures).split(8)]
    return to_pixels(torch.cat(parts))


def face_figures(
    source: Pictures, shown: Pictures, is_held: NDArray[np.bool_], tools: Tools
) -> tuple[Record, Signals]:
    """Return the figures of a clip, and the source's signals.

    Args:
        source: aligned source crops, `[T, R, R, 3]`.
        shown: decoded crops, likewise.
        is_held: `[T]` frames without a face in the source.
        tools: measuring networks, and the bundle for the inverter's own reconstruction.
    """
    rows = spread_rows(is_held)
    reference = reference_at(source, rows, tools)
    landmarker = tools.any_landmarker
    ours, wanted = landmarker.signals(shown), landmarker.signals(source)
    ours.pose[is_held] = np.nan  # is_found is read from the pose
    for signals in (ours, wanted):
        signals.points[is_held] = np.nan
    jitter, expected = (jitter_pixels(s.points, source.shape[1]) for s in (ours, wanted))
    figures = {
        "frames_measured": len(rows),
        "ours": picture_figures(shown[rows], reference, tools),
        "inverter": picture_figures(inverted(source[rows], tools), reference, tools),
        "signals": correlations(ours, wanted),
        "signals_by": landmarker.name,
        "jitter_pixels": jitter,
        "jitter_pixels_source": expected,
        "jitter_ratio": jitter / expected if jitter and expected else None,
        "faces_lost": int((wanted.is_found & ~ours.is_found & ~is_held).sum()),
    }
    return figures, wanted


def swap_all(records: dict[str, Record], out: Path, tools: Tools) -> int:
    """Swap every two clips, decode the frame where the driver's mouth is widest, make a sheet."""
    rows = []
    count = 0
    with TemporaryDirectory() as folder:
        for driver, record in records.items():
            at = np.array([record["figures"]["telling_frames"]["mouth open"]], np.int64)
            own = out / f"{driver}.sglat"
            source = file_variants.decoded_rows(own, tools.bundle, at, Path(folder))[0]
            row = [source]
            for puppet in records:
                if driver == puppet:
                    row.append(source * 0)
                    continue
                target = out / f"{driver}_on_{puppet}.sglat"
                sglat.swap(motion=own, identity=out / f"{puppet}.sglat", out=target, force=True)
                with target.open("rb") as file:
                    verify(file)
                row += list(file_variants.decoded_rows(target, tools.bundle, at, Path(folder)))
                count += 1
            rows.append(contact_sheet([row]))
    write_sheet(out / "swaps.png", [[row] for row in rows])
    return count


def check_resume(video: Path, folder: Path, *, threads: int) -> Record:
    """Encode a piece of a clip undisturbed and with kills at random moments, and compare.

    Args:
        video: its first second is used.
        folder: where the files go.
        threads: of the encoder.

    Returns:
        `kills` of a running encoder, the seconds after which each came, `is_same`.
    """
    folder.mkdir(exist_ok=True)
    whole, cut = folder / "whole.sglat", folder / "cut.sglat"

    def start(target: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sglat.cli.encode", str(video), str(target), "--quiet",
                   "--end", str(RESUME_SECONDS), "--tune-steps", str(RESUME_STEPS),
                   "--threads", str(threads), "--no-self-check"]  # fmt: skip
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    whole.unlink(missing_ok=True)
    cut.unlink(missing_ok=True)
    began = time.monotonic()
    if start(whole).wait() != 0:
        raise SystemExit(f"expected {video} to be encoded, the encoder failed")
    span = time.monotonic() - began
    moments = random.Random(0)
    waits: list[float] = []
    for _ in range(KILLS):
        wait = moments.uniform(LEAST_SECONDS, LEAST_SECONDS + span / 2)
        process = start(cut)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            waits.append(round(wait, 1))
        if cut.exists():
            break
    if not cut.exists():
        start(cut).wait()
    return {
        "kills": len(waits),
        "seconds": waits,
        "undisturbed_seconds": round(span, 1),
        "is_same": whole.read_bytes() == cut.read_bytes(),
    }


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


def run(args: argparse.Namespace, tools: Tools) -> Record:
    """Measure all clips; what is done already is read from OUT."""
    kept = Cache(args.out)
    names = [name for name in PROBES if name != "small" or not args.skip_small]
    records: dict[str, Record] = {}
    for video in sorted(args.clips.glob("*.mp4")):
        if args.names and video.stem not in args.names:
            continue
        print(video.stem, flush=True)
        clip = Clip(video=video, out=args.out, steps=args.steps, threads=args.threads)
        found: dict[str, Record] = {}
        for name in names:
            suffix, probe = PROBES[name]
            found[name] = kept.record(f"{video.stem}{suffix}", lambda p=probe, c=clip: p(c, tools))  # type: ignore[misc]
        records[video.stem] = found.pop("encode") | found
    whole: Record = {"clips": records, "swaps": swap_all(records, args.out, tools)}
    ordered = sorted(records, key=lambda name: records[name]["frames"])
    if not args.skip_resume:
        shortest = args.clips / f"{ordered[0]}.mp4"
        threads = args.threads or 1
        whole["resume"] = kept.record(
            "resume", lambda: check_resume(shortest, args.out / "resume", threads=threads)
        )
    if args.minutes:
        path, threads = args.out / f"{ordered[-1]}.sglat", args.threads or 2
        whole["long"] = kept.record(
            "long", lambda: long_decode.measure(path, args.minutes, threads=threads, is_video=True)
        )
    return whole


def main() -> None:
    """Run over all clips."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = ToolConfig(out=args.out, teachers=args.teachers, heads=args.heads)
    with Tools(config) as tools:
        facts: dict[str, Any] = {
            "decoder_id": tools.bundle.decoder_id.hex(),
            "steps": args.steps,
            "perceptual": tools.judges.perceptual and tools.judges.perceptual.name,
            "signals_by": tools.any_landmarker.name,
        }
        run_facts = provenance("python -m sglat_lab.bench.clips")
        record = facts | run(args, tools)
    record["targets"] = targets("clips")
    record["runs"] = [run_facts]
    print(write_page(args.out / "clips.md", record))


if __name__ == "__main__":
    main()
