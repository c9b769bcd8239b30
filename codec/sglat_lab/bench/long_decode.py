"""Memory and speed of decoding against length: a file's motion is looped and decoded.

    python -m sglat_lab.bench.long_decode FILE.sglat [--minutes 1 3 10] [--threads N] [--video]

The motion is looped with the format's own edits, without any network. Each length is decoded by a
process of its own, whose peak memory is taken from the system; pictures go to a sink that drops
them, or with --video into an MP4 that is deleted. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from sglat.bitstream.reader import open_reader
from sglat.bitstream.timeline import concat

BYTES_PER_MB = 1e6
WARM_FRAMES = 16  # left out of the steady speed: networks are loaded and compiled before


def clip_seconds(path: Path) -> float:
    """Return how long a file plays."""
    with open_reader(path) as reader:
        groups = reader.read_all()
        header = reader.header
    frames = sum(len(group.motion.values) for group in groups)
    if header.frame_ticks is None:
        raise SystemExit("expected a constant frame rate")
    return float(frames * header.frame_ticks * header.time_base)


def loop(path: Path, target: Path, seconds: float) -> None:
    """Write a file that repeats another's motion until it lasts at least `seconds`."""
    times = max(1, math.ceil(seconds / clip_seconds(path)))
    with ExitStack() as stack:
        files: list[BinaryIO] = [stack.enter_context(path.open("rb")) for _ in range(times)]
        concat(files, stack.enter_context(target.open("wb")))


def peak_bytes() -> int:
    """Return the most memory this process has held.

    On Linux from the process's own record: `ru_maxrss` also counts what its parent held at the
    fork.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def decode_here(path: Path, video: Path | None, threads: int) -> dict[str, float]:
    """Decode a file in this process and return frames, seconds and peak memory."""
    import torch

    from sglat.decoder.decode import Decoder
    from sglat.decoder.output import OutputConfig, write_decoded

    torch.set_num_threads(threads)
    began = time.monotonic()
    steady = began
    count = 0
    with path.open("rb") as file:
        decoder = Decoder(file)
        if video is None:
            for frame in decoder.frames():
                count = frame.index + 1
                if count == WARM_FRAMES:
                    steady = time.monotonic()
        else:

            def note(done: int, _: int | None) -> None:
                nonlocal steady
                if done == WARM_FRAMES:
                    steady = time.monotonic()

            config = OutputConfig(path=video, crop_only=True, encoder="libx264")
            count = write_decoded(decoder, config, progress=note).frames
    ended = time.monotonic()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "frames": count,
        "frames_per_second": count / (ended - began),
        "steady_frames_per_second": (count - WARM_FRAMES) / (ended - steady),
        "processor_ms_per_frame": 1000 * (usage.ru_utime + usage.ru_stime) / count,
        "peak_mb": peak_bytes() / BYTES_PER_MB,
    }


def measure(path: Path, *, is_video: bool, threads: int) -> dict[str, float]:
    """Decode in a fresh process."""
    command = [sys.executable, __file__, str(path), "--child", "--threads", str(threads)]
    command += ["--video"] * is_video
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Loop, decode, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--video", action="store_true", help="write H.264 instead of nothing")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "out.mp4" if args.video else None
        if args.child:
            print(json.dumps(decode_here(args.file, video, args.threads)))
            return
        print(f"{args.threads} threads, {'H.264 video' if args.video else 'no output'}\n")
        print("| minutes | file kB | frames | peak memory MB | frames/s | after the first 16 | "
              "processor ms/frame | load |")  # fmt: skip
        print("|---" * 8 + "|")
        for minutes in args.minutes:
            path = Path(folder) / "long.sglat"
            loop(args.file, path, 60 * minutes)
            found = measure(path, is_video=args.video, threads=args.threads)
            cells = (
                f"{minutes:g}", f"{path.stat().st_size / 1000:.0f}", f"{found['frames']:.0f}",
                f"{found['peak_mb']:.0f}", f"{found['frames_per_second']:.1f}",
                f"{found['steady_frames_per_second']:.1f}",
                f"{found['processor_ms_per_frame']:.1f}", f"{os.getloadavg()[0]:.1f}",
            )  # fmt: skip
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
